"""A decay at the end of a run whose length is known: linear to 0 over its last part, 1 before."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from safestep.schedules.ranges import above_0_to_1, whole
from safestep.schedules.schedule import N, Schedule


@final
@dataclass(frozen=True, slots=True)
class DecayAtEnd(Schedule):
    """Keep 1, and go linearly to 0 over the last part of a run.

    Equation:
        ``min(1, (T - t) / D)`` with ``D = share T``, for ``t < T``. The line reaches 0 at ``t = T``, which is no step
        of the run: the last one, ``T - 1``, still has ``1/D``. All its factors add up to ``T - (D - 1)/2`` where D is
        whole.

    A run that goes on beyond its length keeps the factor ``1/D`` of its last step, so that a target stays above 0 and
    nothing crashes; for that reason both infinite sums diverge. A guard whose policy follows the schedule warns once,
    at step T; `torch.optim.lr_scheduler.LambdaLR` says nothing.

    Attributes:
        total: ``T``, how many steps the run has, at least 1.
        share: of the steps that decay, above 0 and at most 1. Where ``share T <= 1`` nothing decays.

    Example:
        >>> schedule = DecayAtEnd(total=10, share=0.5)
        >>> [schedule(t) for t in range(4, 12)]
        [1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2]

    Reference:
        A. Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", arXiv 2405.18392,
        where the rate goes down like this ("linear cooldown"). To have the target of a guard do so is ours.
    """

    total: int = field(metadata={"check": whole})
    share: float = field(default=0.3, metadata={"check": above_0_to_1})

    def _factor(self, t: N) -> N:
        left, decaying = self.total - t, self.share * self.total
        if isinstance(left, Tensor):
            return (left.clamp(min=1.0) / decaying).clamp(max=1.0)
        return min(max(left, 1.0) / decaying, 1.0)

    @property
    def length(self) -> int:
        """``T``."""
        return self.total

    def over(self, t: float) -> bool:
        """Return whether ``t`` is ``T`` or later."""
        return t >= self.total

    def _sum(self, power: float, first: int) -> float:
        return math.inf
