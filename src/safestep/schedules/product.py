"""Product: two schedules at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from safestep.schedules.arithmetic import N
from safestep.schedules.base import Schedule, parts
from safestep.schedules.sums import finite


@final
@dataclass(frozen=True, slots=True)
class Product(Schedule):
    r"""Multiply the factors of two schedules that run on the same clock.

    Equation:
        ``factor(t) = left(t) right(t)``. If one settles at c, the sums are c^power times those of the other from there
        on. If neither does, the sum has no closed form here; it converges if that of either does, since both are
        bounded, and otherwise it is not known.

    Attributes:
        left: a schedule.
        right: a schedule.

    Raises:
        ScheduleError: at construction, for a parameter of the wrong kind.

    Example:
        >>> from safestep.schedules import Inverse, WarmUp
        >>> warm = WarmUp(2) * Inverse(0.5)
        >>> warm(0), warm(2), warm.sum(), round(warm.sum(power=2), 6)
        (0.5, 0.5, inf, 1.829736)
    """

    left: Schedule
    right: Schedule

    def __post_init__(self) -> None:
        """Check the kinds."""
        parts(left=self.left, right=self.right)

    def _factor(self, t: N) -> N:
        return self.left._factor(t) * self.right._factor(t)

    @property
    def settled(self) -> tuple[int, float] | None:
        """Where both have settled, or one has at 0."""
        ends = [end for end in (self.left.settled, self.right.settled) if end is not None]
        if zeros := [end for end in ends if end[1] == 0.0]:
            return min(zeros)
        return (max(ends[0][0], ends[1][0]), ends[0][1] * ends[1][1]) if len(ends) == 2 else None

    @property
    def length(self) -> int | None:
        """The longer of the two lengths, if both have one."""
        one, other = self.left.length, self.right.length
        return None if one is None or other is None else max(one, other)

    def _converges(self, power: float) -> bool | None:
        if self.settled is not None:
            return self.settled[1] == 0.0
        for settles, other in ((self.left, self.right), (self.right, self.left)):
            if settles.settled is not None:
                return other._converges(power)
        return True if self.left._converges(power) or self.right._converges(power) else None

    def _sum(self, power: float, first: int) -> float:
        for settles, other in ((self.left, self.right), (self.right, self.left)):
            if self.settled is None and settles.settled is not None:
                start, value = settles.settled
                start = max(start, first)
                return finite(self, power, first, start) + math.pow(value, power) * other._sum(power, start)
        return Schedule._sum(self, power, first)  # slots make a new class, which super() without arguments misses
