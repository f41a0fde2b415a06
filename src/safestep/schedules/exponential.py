"""Exponential: the same factor less at every step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self, final

from safestep.schedules.arithmetic import N, exp
from safestep.schedules.base import Schedule
from safestep.schedules.checks import ABOVE_0, BETWEEN, keep, number
from safestep.schedules.sums import geometric


@final
@dataclass(frozen=True, slots=True)
class Exponential(Schedule):
    r"""Decay exponentially.

    Equation:
        ``factor(t) = e^(-lambda t)``. Both sums converge, that of the rates to ``1 / (1 - e^(-lambda))``, 10.5 for 0.1:
        all steps together reach only so far, and the mean stalls away from the minimum.

    Attributes:
        decay: ``lambda``, per step, above 0. Not an eigenvalue, which has the same letter.

    Raises:
        ScheduleError: at construction, for a decay outside its range.

    Example:
        >>> round(Exponential(0.1)(10), 3), round(Exponential(0.1).sum(), 3), Exponential(0.1).robbins_monro
        (0.368, 10.508, False)

    Reference:
        d2l.ai, optimization chapter, "Stochastic Gradient Descent".
    """

    decay: float

    def __post_init__(self) -> None:
        """Check the range."""
        keep(self, decay=number(self.decay, "decay", ABOVE_0, "Constant() never decays"))

    @classmethod
    def of_base(cls, alpha: float) -> Self:
        """Return the schedule ``alpha^t``.

        Args:
            alpha: the factor from one step to the next, in (0, 1).

        Raises:
            ScheduleError: for an alpha outside its range.

        Example:
            >>> Exponential.of_base(0.9)
            Exponential(decay=0.10536051565782628)
        """
        return cls(-math.log(number(alpha, "alpha", BETWEEN, "Constant() never decays")))

    def _factor(self, t: N) -> N:
        return exp(-self.decay * t)

    def _converges(self, power: float) -> bool:
        return True

    def _sum(self, power: float, first: int) -> float:
        return geometric(self.decay * power, first)
