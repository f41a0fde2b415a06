"""Inverse: one over a straight line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from safestep.schedules.arithmetic import N
from safestep.schedules.base import Schedule
from safestep.schedules.checks import ABOVE_0, keep, number
from safestep.schedules.sums import power_law


@final
@dataclass(frozen=True, slots=True)
class Inverse(Schedule):
    r"""Decay as 1/t: `Polynomial` with the exponent 1.

    Equation:
        ``factor(t) = 1 / (1 + beta t)``. The sum of the rates diverges, as log t; that of their squares is
        ``zeta(2, 1/beta) / beta^2``: the conditions of Robbins and Monro hold.

    Attributes:
        beta: per step, above 0; the factor is one half at ``t = 1 / beta``.

    Raises:
        ScheduleError: at construction, for a beta outside its range.

    Example:
        >>> Inverse(0.1)(10), Inverse(0.1).robbins_monro
        (0.5, True)

    Reference:
        H. Robbins and S. Monro, "A Stochastic Approximation Method" (1951); d2l.ai, optimization chapter, "Stochastic
        Gradient Descent".
    """

    beta: float

    def __post_init__(self) -> None:
        """Check the range."""
        keep(self, beta=number(self.beta, "beta", ABOVE_0, "Constant() never decays"))

    def _factor(self, t: N) -> N:
        return 1.0 / (1.0 + self.beta * t)

    def _converges(self, power: float) -> bool:
        return power > 1.0

    def _sum(self, power: float, first: int) -> float:
        return power_law(self.beta, power, first)
