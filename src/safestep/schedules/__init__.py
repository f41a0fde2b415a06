"""Schedules of a learning rate or a target: pure functions from the step t, counted from 0, to a factor."""

from safestep.errors import ScheduleError
from safestep.schedules.at_end import DecayAtEnd
from safestep.schedules.elementary import (
    Constant,
    Cosine,
    Exponential,
    Inverse,
    PiecewiseConstant,
    Polynomial,
    Staircase,
    WarmUp,
)
from safestep.schedules.schedule import Product, Scaled, Schedule, Shifted, Then

__all__ = [
    "Constant",
    "Cosine",
    "DecayAtEnd",
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
