"""Polynomial: a negative power of a straight line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from safestep.schedules.arithmetic import N, power
from safestep.schedules.base import Schedule
from safestep.schedules.checks import ABOVE_0, keep, number
from safestep.schedules.sums import power_law


@final
@dataclass(frozen=True, slots=True)
class Polynomial(Schedule):
    r"""Decay as a power of t; with the exponent 1/2 the inverse square root.

    Equation:
        ``factor(t) = (1 + beta t)^(-alpha)``. The sum of the rates converges for ``alpha > 1``, that of their squares
        for ``alpha > 1/2``: the conditions of Robbins and Monro hold for ``1/2 < alpha <= 1``. The published 1/2 is on
        the edge: the squares diverge, as log t.

    Attributes:
        beta: per step, above 0.
        alpha: the exponent, above 0. Not the scale of a throttle, which has the same letter.

    Raises:
        ScheduleError: at construction, for a parameter outside its range.

    Example:
        >>> Polynomial(0.1)(30), Polynomial(0.1).robbins_monro, Polynomial(0.1, alpha=0.75).robbins_monro
        (0.5, False, True)

    Note:
        `torch.optim.lr_scheduler.PolynomialLR` is another thing: ``(1 - t/T)^power``, which ends at 0 after T steps.

    Reference:
        d2l.ai, optimization chapter, "Stochastic Gradient Descent".
    """

    beta: float
    alpha: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        advice = "Constant() never decays"
        keep(
            self,
            beta=number(self.beta, "beta", ABOVE_0, advice),
            alpha=number(self.alpha, "alpha", ABOVE_0, advice),
        )

    def _factor(self, t: N) -> N:
        return power(1.0 + self.beta * t, -self.alpha)

    def _converges(self, power: float) -> bool:
        return self.alpha * power > 1.0

    def _sum(self, power: float, first: int) -> float:
        return power_law(self.beta, self.alpha * power, first)
