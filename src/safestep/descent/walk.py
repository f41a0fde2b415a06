"""The loop: draw, gradient, step, schedule; and what is recorded on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from safestep.descent.driver import rate_of
from safestep.descent.ensemble import Moments, snapshot
from safestep.descent.noise import StepLoss
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
        diverged: which runs were not finite or too far at a record, shape ``(runs,)``.
        trouble: the first gradient that was not finite at a point that was, or an empty text.
    """

    def __init__(
        self,
        parameter: torch.nn.Parameter,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        losses: Iterator[StepLoss],
        guard: RowGuard | None,
        limit: float,
    ) -> None:
        self._parameter, self._optimizer, self._scheduler = parameter, optimizer, scheduler
        self._losses, self._guard = losses, guard
        # beyond the largest number of a narrow type there is inf, which no limit may pass
        self._origin, self._limit = parameter.detach().clone(), min(limit, torch.finfo(parameter.dtype).max)
        self.moments: list[Moments] = []
        self.rates: list[float] = []
        self.scales: list[float] = []
        self.ratios: list[float] = []
        self.diverged = torch.zeros(len(parameter), dtype=torch.bool)
        self.trouble = ""

    def go(
        self, objective: Objective, at: Sequence[int], traces: Tensor, progress: Callable[[int], None] | None
    ) -> None:
        """Walk to the last of the steps ``at`` that are recorded; fill the traces, shape ``(traces, steps + 1, d)``."""
        wanted, rate = frozenset(at), math.nan
        for step in range(at[-1] + 1):
            if step > 0:
                rate = rate_of(self._optimizer)
                self._step(step - 1)
                if progress is not None:
                    progress(step)
            points = self._parameter.detach()  # anew: some optimizers put another tensor in its place
            if len(traces):
                traces[:, step] = points[: len(traces)]
            if step in wanted:
                self.moments.append(snapshot(points, objective))
                self.rates.append(rate)
                if self._guard is not None:
                    self.scales.append(self._guard.scales.mean().item() if step else math.nan)
                    self.ratios.append(self._guard.ratios.median().item() if step else math.nan)
                self.diverged |= ~self._near(points)

    def _step(self, step: int) -> None:
        parameter, points, loss = self._parameter, self._parameter.detach(), next(self._losses)
        if isinstance(self._optimizer, RuleOptimizer):
            self._optimizer.gradient = loss.gradient
        gradient = loss.gradient(points)
        if gradient.dtype != points.dtype or gradient.stride() != points.stride():
            # fused optimizers take the memory order for granted
            gradient = torch.empty_like(points).copy_(gradient)
        if not self.trouble and not math.isfinite(gradient.sum().item()):
            self._find_trouble(points, gradient, step)
        if self._guard is None:
            parameter.grad = gradient
            self._optimizer.step()
        else:
            # copies: an optimizer may write into the gradient, as a clipping hook or Nesterov's momentum does
            before, parameter.grad = points.clone(), gradient.clone()
            self._optimizer.step()
            after = parameter.detach()
            p = after - before
            slope, bend = (gradient * p).sum(-1), loss.bend(before, p)
            with torch.no_grad():
                parameter.copy_(self._guard.settle(before, after, slope, bend, step))
        if self._scheduler is not None:
            self._scheduler.step()

    def _find_trouble(self, points: Tensor, gradient: Tensor, step: int) -> None:
        """Note where a gradient that is not finite was first seen; far away it is divergence and no surprise."""
        bad = ~gradient.isfinite().all(-1) & self._near(points)
        if bad.any():
            run = int(bad.nonzero()[0])
            self.trouble = (
                f"the gradient of {int(bad.sum())} of {len(bad)} runs was not finite in step {step + 1}: "
                f"{gradient[run].tolist()} at {points[run].tolist()} (run {run})"
            )

    def _near(self, points: Tensor) -> Tensor:
        return ((points - self._origin).abs() <= self._limit).all(-1)  # nan compares false
