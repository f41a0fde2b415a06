"""Cosine: half a cosine, down to a floor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from safestep.schedules.arithmetic import N, left, share, sin
from safestep.schedules.base import Schedule
from safestep.schedules.checks import SHARE, keep, number, whole


@final
@dataclass(frozen=True, slots=True)
class Cosine(Schedule):
    r"""Go down half a cosine within so many steps, and stay at its floor.

    Equation:
        ``factor(t) = floor + (1 - floor) (1 + cos(pi t / T)) / 2`` for ``t < T``, then ``floor``. With the floor 0
        both sums are finite, that of the rates (T + 1)/2; with a higher one both diverge.

    Attributes:
        steps: ``T``, at least 1.
        floor: dimensionless, from 0 to 1. A target must stay above 0.

    Raises:
        ScheduleError: at construction, for a parameter outside its range.

    Example:
        >>> Cosine(100)(0), round(Cosine(100)(50), 15), Cosine(100, floor=0.1)(1000), round(Cosine(100).sum(), 9)
        (1.0, 0.5, 0.1, 50.5)

    Note:
        `torch.optim.lr_scheduler.CosineAnnealingLR` does the same for T steps and then goes up again.

    Reference:
        I. Loshchilov and F. Hutter, "SGDR", arXiv 1608.03983, equation 5, without restarts.
    """

    steps: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        keep(self, steps=whole(self.steps, "steps"), floor=number(self.floor, "floor", SHARE))

    def _factor(self, t: N) -> N:
        # (1 + cos x)/2 = sin^2((pi - x)/2), which keeps its digits near the end and is exactly 0 there
        root = sin(0.5 * math.pi * share(left(t, self.steps), self.steps))
        return self.floor + (1.0 - self.floor) * (root * root)

    @property
    def settled(self) -> tuple[int, float]:
        """From T on the floor."""
        return self.steps, self.floor

    @property
    def length(self) -> int:
        """``T``."""
        return self.steps
