"""PiecewiseConstant: given factors between given steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from safestep.errors import ScheduleError
from safestep.schedules.arithmetic import N, piece
from safestep.schedules.base import Schedule
from safestep.schedules.checks import FROM_0, keep, number, whole


@final
@dataclass(frozen=True, slots=True)
class PiecewiseConstant(Schedule):
    r"""Keep one factor up to each boundary.

    Equation:
        ``factor(t) = factors[i]``, ``i`` the number of boundaries with ``at <= t``. Both sums diverge if the last
        factor is above 0, and are finite if it is 0.

    Attributes:
        at: boundaries in steps (or epochs), whole numbers from 1 on, rising. The step at a boundary has the new factor.
        factors: dimensionless, at least 0, one more than boundaries: the first from step 0, the last for ever.

    Raises:
        ScheduleError: at construction, for a parameter outside its range, boundaries out of order, or numbers of
            boundaries and factors that do not fit.

    Example:
        >>> drop = PiecewiseConstant(at=(30, 60), factors=(1, 0.1, 0.01))
        >>> drop(29), drop(30), drop(60), drop.settled
        (1.0, 0.1, 0.01, (60, 0.01))

    Note:
        Its length is the last boundary: ``drop.then(other)`` goes on with the other one instead of the last factor.

    Reference:
        d2l.ai, optimization chapter, "Stochastic Gradient Descent".
    """

    at: tuple[int, ...]
    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check that the boundaries rise and that every piece has its factor."""
        try:
            at = tuple(whole(step, "a boundary in at") for step in self.at)
            factors = tuple(number(factor, "a factor in factors", FROM_0) for factor in self.factors)
        except TypeError:
            raise ScheduleError(
                f"at = {self.at!r}, factors = {self.factors!r}: expected sequences, at=(30, 60), factors=(1, 0.1, 0.01)"
            ) from None
        if not at or any(later <= earlier for earlier, later in pairwise(at)):
            raise ScheduleError(f"at = {at}: expected boundaries that rise, at least one; Constant() has none")
        if len(factors) != len(at) + 1:
            raise ScheduleError(
                f"{len(at)} boundaries and {len(factors)} factors: expected {len(at) + 1} factors, one before the "
                "first boundary and one from each on"
            )
        keep(self, at=at, factors=factors)

    def _factor(self, t: N) -> N:
        return piece(t, self.at, self.factors)

    @property
    def settled(self) -> tuple[int, float]:
        """From the last boundary on the last factor."""
        return self.at[-1], self.factors[-1]

    @property
    def length(self) -> int:
        """The last boundary."""
        return self.at[-1]

    def _sum(self, power: float, first: int) -> float:
        pieces = zip(pairwise((0, *self.at)), self.factors, strict=False)  # the last factor is 0, or there is no sum
        return math.fsum(max(stop - max(start, first), 0) * math.pow(factor, power) for (start, stop), factor in pieces)
