"""Noisy descent: many runs of gradient descent at once on functions of a few variables, and the exact law for some."""

from safestep.descent.batches import Batches
from safestep.descent.ensemble import Ensemble
from safestep.descent.finite_sum import FiniteSum, Terms
from safestep.descent.functions import Beale, Function, Rosenbrock, Saddle
from safestep.descent.law import Law, exact_law, stationary_law
from safestep.descent.noise import Gaussian, Noise, Silent
from safestep.descent.objective import DescentError, Objective
from safestep.descent.quadratic import PLANE, VALLEY, Quadratic
from safestep.descent.quadratic_sum import Bowls, LeastSquares, QuadraticSum
from safestep.descent.rule import Rule
from safestep.descent.simulate import PUBLISHED_FIRST, simulate
from safestep.descent.zscores import Distance, distance

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
