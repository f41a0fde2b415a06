"""Schedules of a learning rate or a target: pure functions from the step t, counted from 0, to a factor."""

from safestep.errors import ScheduleError
from safestep.schedules.base import Schedule
from safestep.schedules.constant import Constant
from safestep.schedules.cosine import Cosine
from safestep.schedules.exponential import Exponential
from safestep.schedules.inverse import Inverse
from safestep.schedules.piecewise import PiecewiseConstant
from safestep.schedules.polynomial import Polynomial
from safestep.schedules.product import Product
from safestep.schedules.scaled import Scaled
from safestep.schedules.shifted import Shifted
from safestep.schedules.staircase import Staircase
from safestep.schedules.then import Then
from safestep.schedules.warmup import WarmUp

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "Inverse",
    "PiecewiseConstant",
    "Polynomial",
    "Product",
    "Scaled",
    "Schedule",
    "ScheduleError",
    "Shifted",
    "Staircase",
    "Then",
    "WarmUp",
]
