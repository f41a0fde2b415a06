"""Noisy descent: many runs of gradient descent at once on functions of a few variables, and the exact law for some."""

from safestep.lab.descent.batches import Batches
from safestep.lab.descent.bowls import Bowls
from safestep.lab.descent.ensemble import Ensemble
from safestep.lab.descent.finite_sum import FiniteSum, Terms
from safestep.lab.descent.function import Function
from safestep.lab.descent.functions import Beale, Rosenbrock, Saddle
from safestep.lab.descent.law import Law, exact_law, stationary_law
from safestep.lab.descent.least_squares import LeastSquares
from safestep.lab.descent.noise import Gaussian, Noise, Silent
from safestep.lab.descent.objective import DescentError, Objective
from safestep.lab.descent.quadratic import PLANE, VALLEY, Quadratic
from safestep.lab.descent.quadratic_sum import QuadraticSum
from safestep.lab.descent.rule import Rule
from safestep.lab.descent.simulate import PUBLISHED_FIRST, simulate
from safestep.lab.descent.zscores import Distance, distance

__all__ = [
    "PLANE",
    "PUBLISHED_FIRST",
    "VALLEY",
    "Batches",
    "Beale",
    "Bowls",
    "DescentError",
    "Distance",
    "Ensemble",
    "FiniteSum",
    "Function",
    "Gaussian",
    "Law",
    "LeastSquares",
    "Noise",
    "Objective",
    "Quadratic",
    "QuadraticSum",
    "Rosenbrock",
    "Rule",
    "Saddle",
    "Silent",
    "Terms",
    "distance",
    "exact_law",
    "simulate",
    "stationary_law",
]
