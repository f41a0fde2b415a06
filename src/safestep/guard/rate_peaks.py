"""How far the learning rates have come down from their peaks, which the target of a limit may follow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from safestep.schedules.ranges import from_0, whole_from_0

_SHARE = 0.5
"""Of the peak: from there down a target follows. A rate near its peak asks for nothing, and an accident that doubles
the peak leaves nothing behind."""
_LEAST = 0.01
"""A target of 0 would be no target, where the last rate of a schedule is 0."""
_FREE = 10
"""Steps in which a peak rises as it likes: a first rate may be next to nothing."""
_STAYS, _STAYS_LOW = 1 / 2, 2 / 3
"""Of all steps: a rate above the peak, or below it, that was the same for so long is no accident, or no end of a
schedule: it is the peak."""


class Peak(NamedTuple):
    """What is known of the rates of one group.

    Attributes:
        steps: that were taken since its first positive rate.
        peak: its highest rate, as far as it counts.
        rate: the last one.
        same: for how many steps it has been this one.
    """

    steps: int
    peak: float
    rate: float
    same: int

    def after(self, rate: float) -> Peak:
        """Return what is known after one more step."""
        steps, same = self.steps + 1, self.same + 1 if rate == self.rate else 1
        rise = math.inf if steps <= _FREE else (steps / self.steps) ** 2
        stays = same >= (_STAYS if rate > self.peak else _STAYS_LOW) * steps
        return Peak(steps, rate if stays else max(self.peak, min(rate, rise * self.peak)), rate, same)


@dataclass(frozen=True)
class RatePeaks:
    r"""The highest rate of every group so far, as far as it rose no faster than the square of the steps.

    Equation:
        ``peak' = max(peak, min(rate, (1 + 1/t)^2 peak))`` after ``t`` steps of the group, with any rise where
        ``t < 10``; the rate itself where it was the same for half of the steps, or for two thirds if it is below the
        peak. A target is multiplied by ``min(1, sqrt(2 rate / peak))``, of the group where that is largest, but at
        least by 0.01. The root, since r goes about as the root of the rate along a schedule: the loss bends more where
        steps get shorter.

    Attributes:
        groups: of every group that has had a positive rate, by a name of its own.

    Example:
        >>> peaks = RatePeaks()
        >>> for rate in (0.1, 0.2, 0.3, 0.3):  # a warm-up
        ...     peaks = peaks.after({"0/0": rate})
        >>> [round(peaks.after({"0/0": rate}).factor({"0/0": rate}), 3) for rate in (0.3, 0.15, 0.075, 0.0)]
        [1.0, 1.0, 0.707, 0.01]
    """

    groups: dict[str, Peak] = field(default_factory=dict)

    @classmethod
    def of(cls, state: Mapping[str, tuple[int, float, float, int]]) -> Self:
        """Read what `as_state` returned.

        Raises:
            ValueError: if it cannot have been counted.
            TypeError: if it is of another kind.
        """
        peaks = {name: Peak(*known) for name, known in dict(state).items()}
        for one in peaks.values():
            for name, check in (("steps", whole_from_0), ("peak", from_0), ("rate", from_0), ("same", whole_from_0)):
                check(getattr(one, name), name)
        return cls(peaks)

    def as_state(self) -> dict[str, tuple[int, float, float, int]]:
        """Return it as plain data."""
        return {name: (one.steps, one.peak, one.rate, one.same) for name, one in self.groups.items()}

    def after(self, rates: Mapping[str, float]) -> Self:
        """Return the peaks after a step of some groups at these rates; nan is the rate of a group that has none."""
        rates = _usable(rates)
        known = {name: self.groups[name].after(rate) for name, rate in rates.items() if name in self.groups}
        known = {name: one for name, one in known.items() if one.peak > 0.0}
        # A group that joins on the way down is as far down as the others.
        share = max((one.rate / one.peak for one in known.values()), default=1.0)
        joining = {name: rate for name, rate in rates.items() if name not in known and rate > 0.0}
        new = {name: Peak(1, rate / (min(1.0, share) or 1.0), rate, 1) for name, rate in joining.items()}
        waiting = {name: one for name, one in self.groups.items() if name not in rates}
        return type(self)(waiting | known | new)

    def factor(self, rates: Mapping[str, float]) -> float:
        """Return what the target of a step at these rates is multiplied by; 1 where no group has had a rate."""
        shares = [rate / self.groups[name].peak for name, rate in _usable(rates).items() if name in self.groups]
        return min(1.0, max(_LEAST, math.sqrt(max(shares) / _SHARE))) if shares else 1.0


def _usable(rates: Mapping[str, float]) -> dict[str, float]:
    return {name: rate for name, rate in rates.items() if 0.0 <= rate < math.inf}
