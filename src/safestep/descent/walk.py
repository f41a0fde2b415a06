"""The loop: draw, gradient, step, schedule; and what it keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from safestep.descent.driver import rate_of
from safestep.descent.moments import Moments, snapshot
from safestep.descent.noise import Oracle
from safestep.descent.objective import Objective
from safestep.descent.rows import RowGuard
from safestep.descent.rule import RuleOptimizer


class Walk:
    """Takes the steps of an ensemble.

    Attributes:
        moments: statistics, one a record.
        rates: learning rate of the last step before each record.
        scales: mean scale of that step.
        ratios: median ratio of that step.
        diverged: which runs were found not finite or too far, shape ``(runs,)``.
        trouble: the first gradient that was not finite at a point that was, or an empty text.
    """

    def __init__(
        self,
        parameter: torch.nn.Parameter,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        oracle: Oracle,
        guard: RowGuard | None,
    ) -> None:
        self._parameter, self._optimizer, self._scheduler = parameter, optimizer, scheduler
        self._oracle, self._guard = oracle, guard
        self._origin, self._limit = parameter.detach().clone(), math.inf
        self.moments: list[Moments] = []
        self.rates: list[float] = []
        self.scales: list[float] = []
        self.ratios: list[float] = []
        self.diverged = torch.zeros(len(parameter), dtype=torch.bool)
        self.trouble = ""

    def go(
        self,
        objective: Objective,
        at: Sequence[int],
        traces: Tensor,
        limit: float,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Walk to the last of the steps to record.

        Args:
            objective: whose loss is recorded.
            at: rising, from 0.
            traces: filled with the points of the first runs, shape ``(kept, steps + 1, d)``.
            limit: farther than this from the start is diverged.
            progress: is told the number of every step that was taken.
        """
        kept, wanted = len(traces), frozenset(at)
        # beyond the largest number of a narrow type there is inf, which no limit may pass
        rate, self._limit = math.nan, min(limit, torch.finfo(self._parameter.dtype).max)
        for step in range(at[-1] + 1):
            if step > 0:
                rate = rate_of(self._optimizer)
                self._step(step - 1)
                if progress is not None:
                    progress(step)
            points = self._parameter.detach()  # anew: some optimizers put another tensor in its place
            if kept:
                traces[:, step] = points[:kept]
            if step in wanted:
                self.moments.append(snapshot(points, objective))
                self.rates.append(rate)
                guard = self._guard if step else None
                self.scales.append(math.nan if guard is None else guard.scales.mean().item())
                self.ratios.append(math.nan if guard is None else guard.ratios.median().item())
                self.diverged |= ~self._near(points)

    def _step(self, step: int) -> None:
        parameter, points = self._parameter, self._parameter.detach()
        self._oracle.draw()
        if isinstance(self._optimizer, RuleOptimizer):
            self._optimizer.gradient = self._oracle.gradient
        gradient = _laid_out(self._oracle.gradient(points), points)
        if not self.trouble and not math.isfinite(gradient.sum().item()):
            self._look(points, gradient, step)
        guarded = self._guard is not None
        # copies: an optimizer may write into the gradient, as a clipping hook or Nesterov's momentum does
        parameter.grad = gradient.clone() if guarded else gradient
        before = points.clone() if guarded else points
        self._optimizer.step()
        if self._guard is not None:
            points = parameter.detach()
            p = points - before
            slope, bend = (gradient * p).sum(-1), self._oracle.bend(before, p)
            with torch.no_grad():
                parameter.copy_(self._guard.settle(before, points, slope, bend, step))
        if self._scheduler is not None:
            self._scheduler.step()

    def _look(self, points: Tensor, gradient: Tensor, step: int) -> None:
        """Say of the first gradient that is not finite where that was; far away it is divergence and no surprise."""
        bad = ~gradient.isfinite().all(-1) & self._near(points)
        if bad.any():
            run = int(bad.nonzero()[0])
            self.trouble = (
                f"the gradient of {int(bad.sum())} of {len(bad)} runs was not finite in step {step + 1}: "
                f"{gradient[run].tolist()} at {points[run].tolist()} (run {run})"
            )

    def _near(self, points: Tensor) -> Tensor:
        return ((points - self._origin).abs() <= self._limit).all(-1)  # nan compares false


def _laid_out(gradient: Tensor, points: Tensor) -> Tensor:
    """Return a gradient of the type and memory order of the points: fused optimizers take the order for granted."""
    if gradient.dtype == points.dtype and gradient.stride() == points.stride():
        return gradient
    return torch.empty_like(points).copy_(gradient)
