"""Scaled: a schedule times a number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from safestep.schedules.arithmetic import N
from safestep.schedules.base import Schedule, parts
from safestep.schedules.checks import FROM_0, keep, number


@final
@dataclass(frozen=True, slots=True)
class Scaled(Schedule):
    r"""Multiply a schedule by a number.

    Equation:
        ``c factor(t)``. Its sums are c^power times those of the schedule, and converge where those do.

    Attributes:
        factor: ``c``, dimensionless, at least 0.
        schedule: what is multiplied.

    Raises:
        ScheduleError: at construction, for a factor outside its range.

    Example:
        >>> from safestep.schedules import Staircase
        >>> 0.5 * Staircase(30), (0.5 * Staircase(30))(30)
        (Scaled(factor=0.5, schedule=Staircase(every=30, ratio=0.1)), 0.05)
    """

    factor: float
    schedule: Schedule

    def __post_init__(self) -> None:
        """Check the factor."""
        parts(schedule=self.schedule)
        keep(self, factor=number(self.factor, "factor", FROM_0))

    def _factor(self, t: N) -> N:
        return self.factor * self.schedule._factor(t)

    @property
    def settled(self) -> tuple[int, float] | None:
        """Where the schedule settles; at once at 0 if the factor is 0."""
        if self.factor == 0.0:
            return 0, 0.0
        end = self.schedule.settled
        return None if end is None else (end[0], self.factor * end[1])

    @property
    def length(self) -> int | None:
        """That of the schedule."""
        return self.schedule.length

    def _converges(self, power: float) -> bool | None:
        return self.factor == 0.0 or self.schedule._converges(power)

    def _sum(self, power: float, first: int) -> float:
        if self.factor == 0.0:
            return 0.0
        return math.pow(self.factor, power) * self.schedule._sum(power, first)
