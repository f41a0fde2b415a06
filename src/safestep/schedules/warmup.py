"""WarmUp: a straight line up to the full rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from safestep.schedules.arithmetic import N, share
from safestep.schedules.base import Schedule
from safestep.schedules.checks import SHARE, keep, number, whole


@final
@dataclass(frozen=True, slots=True)
class WarmUp(Schedule):
    r"""Rise linearly within so many steps, and stay at 1.

    Equation:
        ``factor(t) = start + (1 - start) (t + 1)/T`` for ``t < T``, then 1; with ``t + 1``, because a first step of
        rate 0 would spend a batch without moving (and feed it to Adam's moments). The last warm step has the factor 1.
        Both sums diverge, as for a constant; what counts is what comes `then`.

    Attributes:
        steps: ``T``, at least 1.
        start: dimensionless, from 0 to 1; where the line would be one step before the first.

    Raises:
        ScheduleError: at construction, for a parameter outside its range.

    Example:
        >>> [WarmUp(4)(t) for t in range(6)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]

    Note:
        Equals `torch.optim.lr_scheduler.LinearLR` with ``start_factor = start + (1 - start)/T`` and
        ``total_iters = T - 1``.

    Reference:
        P. Goyal et al., arXiv 1706.02677, section 2.2 (gradual warm-up).
    """

    steps: int
    start: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        keep(self, steps=whole(self.steps, "steps"), start=number(self.start, "start", SHARE))

    def _factor(self, t: N) -> N:
        return self.start + (1.0 - self.start) * share(t + 1.0, self.steps)

    @property
    def settled(self) -> tuple[int, float]:
        """From the last warm step on 1."""
        return self.steps - 1, 1.0

    @property
    def length(self) -> int:
        """``T``."""
        return self.steps
