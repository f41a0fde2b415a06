"""What is kept of an ensemble at a step: moments over its runs, and how its losses are spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from safestep.descent.objective import Objective

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


@torch.no_grad()
def snapshot(x: Tensor, objective: Objective) -> Moments:
    """Return the statistics of one step: those of `Moments` without their leading ``k``.

    Args:
        x: the points, shape ``(runs, d)``.
        objective: whose loss is measured, exactly, without noise.
    """
    # a copy: a function of the user's may write into x, and x are the runs themselves
    losses, x = objective.value(x.clone()).detach().double(), x.double()
    count = len(x)
    if not math.isfinite((x.sum() + losses.sum()).item()):  # one number tells the usual case
        alive = x.isfinite().all(-1) & losses.isfinite()
        count, x, losses = int(alive.sum()), x[alive], losses[alive]
    nowhere, unknown = x.new_full(x.shape[1:], math.nan), x.new_full((), math.nan)
    mean = x.mean(0) if count else nowhere
    squares = (x - mean).square()
    return Moments(
        mean=mean,
        variance=squares.sum(0) / (count - 1) if count > 1 else nowhere,
        fourth=squares.square().mean(0) if count else nowhere,
        loss=losses.mean() if count else unknown,
        loss_variance=(losses - losses.mean()).square().sum() / (count - 1) if count > 1 else unknown,
        loss_quantiles=_quantiles(losses[:_RANKED]) if count else unknown.expand(len(LEVELS)),
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
