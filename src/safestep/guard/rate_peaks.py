"""How far the learning rates have come down from their peaks, which the target of a limit may follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from safestep.schedules.ranges import whole_from_0

_SHARE = 0.5
"""Of the peak: from there down a target follows. A rate near its peak asks for nothing, and an accident that doubles
the peak leaves nothing behind."""
_LEAST = 0.01
"""A target of 0 would be no target, where the last rate of a schedule is 0."""


@dataclass(frozen=True)
class RatePeaks:
    r"""The highest rate of every group so far, as far as it rose no faster than the square of the steps.

    Equation:
        ``peak' = max(peak, min(rate, (1 + 1/t)^2 peak))`` after ``t`` steps, ``peak = rate`` at the first positive one.
        Warm-ups are slower than that; a rate that is wrong for a moment, late in a run, hardly counts.
        Of a target: ``min(1, sqrt(2 rate / peak))``, of the group where that is largest, at least 0.01. The root, since
        r itself goes about as the root of the rate along a schedule: the loss bends more where steps get shorter.

    Attributes:
        steps: since some rate was positive, at least 0.
        peaks: of the groups, in their order, at least 0.

    Example:
        >>> peaks = RatePeaks()
        >>> for rate in (0.1, 0.2, 0.3, 0.3):  # a warm-up
        ...     peaks = peaks.after([rate])
        >>> [round(peaks.factor([rate]), 3) for rate in (0.3, 0.15, 0.075, 0.0)]
        [1.0, 1.0, 0.707, 0.01]
        >>> peaks.after([3000.0]).after([0.3]).factor([0.3])  # an accident
        1.0
    """

    steps: int = 0
    peaks: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot have been counted."""
        whole_from_0(self.steps, "steps")
        if not all(0.0 <= peak < math.inf for peak in self.peaks):
            raise ValueError(f"peaks = {self.peaks!r}: expected finite rates of at least 0")

    def after(self, rates: Sequence[float]) -> Self:
        """Return the peaks after a step at these rates; nan is the rate of a group that has none."""
        rise = (1.0 + 1.0 / max(self.steps, 1)) ** 2
        known = (*self.peaks, *[0.0] * len(rates))
        peaks = tuple(_raised(peak, rate, rise) for peak, rate in zip(known, rates, strict=False))
        return type(self)(self.steps + any(peaks), peaks)

    def factor(self, rates: Sequence[float]) -> float:
        """Return what the target of a step at these rates is multiplied by; 1 where no group has had a rate."""
        shares = [rate / peak for peak, rate in zip(self.peaks, rates, strict=False) if peak > 0.0 and rate >= 0.0]
        return min(1.0, max(_LEAST, math.sqrt(max(shares) / _SHARE))) if shares else 1.0


def _raised(peak: float, rate: float, rise: float) -> float:
    if not 0.0 < rate < math.inf:
        return peak
    return max(peak, min(rate, rise * peak)) if peak > 0.0 else rate
