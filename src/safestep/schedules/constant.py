"""Constant: the same factor at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from safestep.schedules.arithmetic import N
from safestep.schedules.base import Schedule
from safestep.schedules.checks import FROM_0, keep, number


@final
@dataclass(frozen=True, slots=True)
class Constant(Schedule):
    r"""Keep the factor.

    Equation:
        ``factor(t) = value``. The sums of the rates and of their squares both diverge: the iterate gets near the
        minimum and never settles, its variance stays of the order of the rate.

    Attributes:
        value: dimensionless, at least 0. At 0 nothing moves, and both sums are 0.

    Raises:
        ScheduleError: at construction, for a value outside its range.

    Example:
        >>> Constant()(7), Constant(0.5).robbins_monro
        (1.0, False)

    Reference:
        d2l.ai, optimization chapter, "Stochastic Gradient Descent".
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        """Check the value."""
        keep(self, value=number(self.value, "value", FROM_0))

    def _factor(self, t: N) -> N:
        return self.value + 0.0 * t  # of the shape of t

    @property
    def settled(self) -> tuple[int, float]:
        """From step 0 on the value."""
        return 0, self.value
