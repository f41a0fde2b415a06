"""How far may one go along a step? One radius per file, one method each: `measure`."""

from safestep.radius.curvature import CurvatureRadius
from safestep.radius.default_limit import DefaultLimit, default_limit
from safestep.radius.hessian import HessianRadius
from safestep.radius.kl import KLRadius
from safestep.radius.radius import Radius
from safestep.radius.secant import SecantCurvature
from safestep.radius.softmax import SoftmaxRadius
from safestep.radius.tightest import Tightest

__all__ = [
    "CurvatureRadius",
    "DefaultLimit",
    "HessianRadius",
    "KLRadius",
    "Radius",
    "SecantCurvature",
    "SoftmaxRadius",
    "Tightest",
    "default_limit",
]
