"""Then: one schedule after another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from safestep.schedules.arithmetic import N
from safestep.schedules.base import Schedule, parts
from safestep.schedules.checks import keep, whole
from safestep.schedules.sums import finite


@final
@dataclass(frozen=True, slots=True)
class Then(Schedule):
    r"""Follow the first schedule for so many steps, then the second, which counts from 0 again.

    Equation:
        ``factor(t) = first(t)`` for ``t < after``, then ``second(t - after)``. Its sums converge where those of the
        second do.

    Attributes:
        first: the schedule of the first steps.
        second: the schedule of all others.
        after: how many steps the first is followed, at least 1.

    Raises:
        ScheduleError: at construction, for a parameter of the wrong kind.

    Example:
        >>> from safestep.schedules import Inverse, WarmUp
        >>> warm = WarmUp(2).then(Inverse(0.5))
        >>> [warm(t) for t in (0, 1, 2, 4)], warm.robbins_monro
        ([0.5, 1.0, 1.0, 0.5], True)
    """

    first: Schedule
    second: Schedule
    after: int

    def __post_init__(self) -> None:
        """Check the kinds."""
        parts(first=self.first, second=self.second)
        keep(self, after=whole(self.after, "after"))

    def _factor(self, t: N) -> N:
        if isinstance(t, Tensor):
            later = self.second._factor((t - self.after).clamp(min=0.0))
            return torch.where(t < self.after, self.first._factor(t), later)
        return self.first._factor(t) if t < self.after else self.second._factor(t - self.after)

    @property
    def settled(self) -> tuple[int, float] | None:
        """Where the second settles."""
        end = self.second.settled
        return None if end is None else (self.after + end[0], end[1])

    @property
    def length(self) -> int | None:
        """Where the second ends."""
        length = self.second.length
        return None if length is None else self.after + length

    def _converges(self, power: float) -> bool | None:
        return self.second._converges(power)

    def _sum(self, power: float, first: int) -> float:
        early = finite(self.first, power, first, self.after)
        return early + self.second._sum(power, max(first - self.after, 0))
