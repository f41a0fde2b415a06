"""Staircase: a fixed factor less every so many steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from safestep.schedules.arithmetic import N, power_of
from safestep.schedules.base import Schedule
from safestep.schedules.checks import BETWEEN, keep, number, whole
from safestep.schedules.sums import geometric


@final
@dataclass(frozen=True, slots=True)
class Staircase(Schedule):
    r"""Divide the rate by a constant every so many steps, for ever.

    Equation:
        ``factor(t) = ratio^floor(t / K)``. Both sums converge, that of the rates to ``K / (1 - ratio)``: like
        `Exponential`, it stops somewhere.

    Attributes:
        every: ``K``, steps (or epochs, whichever the scheduler counts) on one stair, at least 1.
        ratio: the factor from one stair to the next, in (0, 1).

    Raises:
        ScheduleError: at construction, for a parameter outside its range.

    Example:
        >>> import torch
        >>> Staircase(30)(torch.tensor([0, 29, 30, 60]))
        tensor([1.0000, 1.0000, 0.1000, 0.0100], dtype=torch.float64)
        >>> Staircase(30, ratio=0.5).sum()
        60.0

    Reference:
        d2l.ai, optimization chapter, "Stochastic Gradient Descent" (piecewise constant).
    """

    every: int
    ratio: float = 0.1

    def __post_init__(self) -> None:
        """Check the ranges."""
        keep(self, every=whole(self.every, "every"), ratio=number(self.ratio, "ratio", BETWEEN))

    def _factor(self, t: N) -> N:
        return power_of(self.ratio, t // self.every)

    def _converges(self, power: float) -> bool:
        return True

    def _sum(self, power: float, first: int) -> float:
        stair, climbed = divmod(first, self.every)
        here = (self.every - climbed) * math.pow(self.ratio, power * stair)  # what is left of the stair it begins on
        return here + self.every * geometric(-power * math.log(self.ratio), stair + 1)
