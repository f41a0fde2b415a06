"""What a simulation returns: statistics over the runs, their last points, and the traces that were recorded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from safestep.descent.noise import Noise
from safestep.descent.objective import DescentError, Objective

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the quantiles of the loss."""
_RANKED = 2000
"""Quantiles are those of this many runs at most: sorting all of a large ensemble takes longer than its step."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Statistics over the runs at ``k`` recorded steps, in float64; each over the runs that are finite there.

    Attributes:
        mean: of the points, shape ``(k, d)``.
        variance: of each coordinate, unbiased, shape ``(k, d)``; nan for one run.
        fourth: fourth central moment of each coordinate, shape ``(k, d)``.
        loss: mean of ``f``, shape ``(k,)``.
        loss_variance: of ``f`` over the runs, unbiased, shape ``(k,)``.
        loss_quantiles: of ``f``, shape ``(k, 5)``, at `LEVELS`; of the first 2000 runs.
        finite: how many runs are finite and have a finite ``f``, shape ``(k,)``.
    """

    mean: Tensor
    variance: Tensor
    fourth: Tensor
    loss: Tensor
    loss_variance: Tensor
    loss_quantiles: Tensor
    finite: Tensor


@dataclass(frozen=True, eq=False)
class Setting:
    """What an ensemble was made with, as far as the exact law needs it.

    Attributes:
        objective: that was descended on.
        noise: on its gradients.
        start: of the runs, shape ``(d,)`` if all began at one point, or ``(runs, d)``.
        rates: returns the learning rate of every step, shape ``(steps,)``; computed anew at each call.
        no_law: why the exact law does not hold, or an empty text for plain gradient descent.
    """

    objective: Objective
    noise: Noise
    start: Tensor
    rates: Callable[[], Tensor]
    no_law: str


@dataclass(frozen=True, eq=False, repr=False)
class Ensemble:
    """Many runs of one descent.

    Attributes:
        setting: what it was made with.
        steps: how many were taken.
        runs: how many runs.
        at: the recorded steps, rising from 0 (the start) to ``steps``, shape ``(k,)``.
        moments: the statistics at these.
        rates: learning rate of the last step before each record, shape ``(k,)``; nan at the start.
        scales: mean over the runs of what the policy multiplied that step by, shape ``(k,)``; None without a policy.
        ratios: median over the runs of that step's ``r`` before it was scaled, shape ``(k,)``; None without a policy.
        shortened: share of all steps that the policy shortened or held, from 0 to 1.
        held: share of all steps that it held because they went uphill.
        last: where the runs ended, shape ``(runs, d)``.
        traces: the first runs whole, shape ``(traces, steps + 1, d)``, the start included.
        diverged: which runs were not finite, or farther than ``limit`` from their start, at any record, ``(runs,)``.
        trouble: what went wrong first, or an empty text.
    """

    setting: Setting
    steps: int
    runs: int
    at: Tensor
    moments: Moments
    rates: Tensor
    scales: Tensor | None
    ratios: Tensor | None
    shortened: float
    held: float
    last: Tensor
    traces: Tensor
    diverged: Tensor
    trouble: str

    @property
    def lost(self) -> int:
        """How many runs diverged."""
        return int(self.diverged.sum())

    def last_point(self, run: int = 0) -> str:
        """Return the last point of a run as a line of text.

        Example:
            >>> from safestep.descent import PLANE, simulate
            >>> print(simulate(PLANE, steps=20).last_point())
            epoch 20, x1: -0.057646, x2: -0.000073

        Source:
            The format is that of "Stochastic Gradient Descent", Dive into Deep Learning (d2l.ai).
        """
        if not -self.runs <= run < self.runs:
            raise DescentError(f"run {run} of {self.runs}: expected one from 0 to {self.runs - 1}")
        # as published, as long as that can be read
        point = [f"{value:f}" if abs(value) < 1e9 else f"{value:e}" for value in self.last[run].tolist()]
        return f"epoch {self.steps}, {_named(point)}"

    def trace(self, run: int = 0) -> Tensor:
        """Return the points of one run, shape ``(steps + 1, d)``.

        Raises:
            DescentError: if that run was not recorded whole.
        """
        if not 0 <= run < len(self.traces):
            raise DescentError(
                f"no trace of run {run}: {len(self.traces)} of {self.runs} runs were recorded whole; "
                f"simulate with traces={max(run + 1, 1)}"
            )
        return self.traces[run]

    def __repr__(self) -> str:
        return (
            f"<Ensemble of {self.runs} runs and {self.steps} steps on {self.setting.objective!r}; {self.lost} diverged>"
        )

    def __str__(self) -> str:
        lines = [self.last_point()]
        if self.runs > 1:
            deviations = ", ".join(f"{math.sqrt(value):.6g}" for value in self.moments.variance[-1].tolist())
            mean = _named([f"{value:.6g}" for value in self.moments.mean[-1].tolist()])
            lines = [
                f"epoch {self.steps}, mean of {self.runs} runs: {mean}",
                f"standard deviations: {deviations}, mean f: {self.moments.loss[-1].item():.6g}",
            ]
            if self.scales is not None:
                lines.append(f"of all steps {self.shortened:.1%} shortened, {self.held:.1%} held still")
        return "\n".join([*lines, *([self.trouble] if self.trouble else [])])


def _named(numbers: list[str]) -> str:
    return ", ".join(f"x{i}: {number}" for i, number in enumerate(numbers, 1))


@torch.no_grad()
def snapshot(x: Tensor, objective: Objective) -> Moments:
    """Return the statistics of one step, those of `Moments` without their leading ``k``; ``x`` is ``(runs, d)``."""
    # a copy: a function of the user's may write into x, and x are the runs themselves
    losses, x = objective.value(x.clone()).detach().double(), x.double()
    if not math.isfinite((x.sum() + losses.sum()).item()):  # one number tells the usual case
        alive = x.isfinite().all(-1) & losses.isfinite()
        x, losses = x[alive], losses[alive]
    count = len(x)
    # over no runs a mean is nan, and so is a variance over one
    mean, loss, others = x.mean(0), losses.mean(), max(count - 1, 0)
    squares = (x - mean).square()
    return Moments(
        mean=mean,
        variance=squares.sum(0) / others,
        fourth=squares.square().mean(0),
        loss=loss,
        loss_variance=(losses - loss).square().sum() / others,
        loss_quantiles=_quantiles(losses[:_RANKED]) if count else loss.expand(len(LEVELS)),
        finite=torch.tensor(count),
    )


def _quantiles(values: Tensor) -> Tensor:
    """Return the quantiles at `LEVELS`, interpolated linearly; `torch.quantile` takes five times as long."""
    ranked = values.sort().values
    place = torch.tensor(LEVELS, dtype=values.dtype) * (len(ranked) - 1)
    below = place.long()
    return torch.lerp(ranked[below], ranked[(below + 1).clamp(max=len(ranked) - 1)], place - below)


def stacked(moments: Sequence[Moments]) -> Moments:
    """Return the statistics of several steps as one record."""
    return Moments(**{f.name: torch.stack([getattr(one, f.name) for one in moments]) for f in fields(Moments)})
