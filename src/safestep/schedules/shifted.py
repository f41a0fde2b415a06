"""Shifted: a schedule that has begun earlier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from safestep.schedules.arithmetic import N
from safestep.schedules.base import Schedule, parts
from safestep.schedules.checks import keep, whole


@final
@dataclass(frozen=True, slots=True)
class Shifted(Schedule):
    r"""Begin so many steps into a schedule.

    Equation:
        ``factor(t + by)``. Its sums are those of the schedule from ``first + by`` on, and converge where those do. With
        ``by=2`` a scheduler that counts from 0 follows the counter of the published runs.

    Attributes:
        schedule: what is begun.
        by: steps, at least 0.

    Raises:
        ScheduleError: at construction, for a number of steps outside its range.

    Example:
        >>> from safestep.schedules import Inverse
        >>> Inverse(0.5).shifted(2)(0), Inverse(0.5).shifted(2)
        (0.5, Shifted(schedule=Inverse(beta=0.5), by=2))
    """

    schedule: Schedule
    by: int

    def __post_init__(self) -> None:
        """Check the shift."""
        parts(schedule=self.schedule)
        keep(self, by=whole(self.by, "by", least=0))

    def _factor(self, t: N) -> N:
        return self.schedule._factor(t + self.by)

    @property
    def settled(self) -> tuple[int, float] | None:
        """Where the schedule settles, so much earlier."""
        end = self.schedule.settled
        return None if end is None else (max(end[0] - self.by, 0), end[1])

    @property
    def length(self) -> int | None:
        """What is left of the length of the schedule; None if nothing is."""
        length = self.schedule.length
        return None if length is None or length <= self.by else length - self.by

    def _converges(self, power: float) -> bool | None:
        return self.schedule._converges(power)

    def _sum(self, power: float, first: int) -> float:
        return self.schedule._sum(power, first + self.by)
