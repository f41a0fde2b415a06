"""The steps of one run of limits: plain, under a cap at the same schedule, or pinned without rate and schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch.optim import Optimizer

from safestep.errors import PoisonedOptimizerError
from safestep.experiments.limits.limits_plan import CAP, PIN_DECAY
from safestep.guard.guard import Guard
from safestep.lab.tasks import Task
from safestep.policy import Cap, Pin, Policy
from safestep.schedules import Constant, Cosine, DecayAtEnd, Schedule, WarmUp

_WARM_UP, _DECAY = 0.1, 0.3
"""Shares of a run: of a tuned schedule until the peak, and in which a decaying target goes to 0."""


def schedule(steps: int, *, tuned: bool) -> Schedule:
    """Return the rate of every step over the peak: a warm-up and a cosine, or nothing that would have to be tuned."""
    return WarmUp(math.ceil(_WARM_UP * steps)) * Cosine(steps) if tuned else Constant()


def policy_of(name: str, target: float, steps: int) -> Policy:
    """Return a policy by its name in settings; of a cap the target stays, whatever the rates do.

    Example:
        >>> [round(policy_of("pin-decay", 0.2, 100).target_at(step), 3) for step in (0, 70, 85, 99)]
        [0.2, 0.2, 0.1, 0.007]
    """
    if name == CAP:
        return Cap(target, Constant())
    return Pin(target, DecayAtEnd(steps, _DECAY) if name == PIN_DECAY else None)


def steps(
    task: Task, optimizers: Sequence[Optimizer], guard: Guard | None, rates: Schedule, count: int, seed: int
) -> Iterator[tuple[float, float, float]]:
    """Train, and yield the loss before each step, its r and its scale (nan and 1 without a guard).

    The seed is that of the order of the batches. A run ends early where its loss is not finite or its optimizer's
    state is lost.
    """
    batches = task.batches(task.batch_size, torch.Generator().manual_seed(seed))
    groups = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
    task.model.train()
    for step in range(count):
        inputs, labels = next(batches)
        loss = task.loss(inputs, labels)
        if not math.isfinite(loss.item()):
            return
        task.model.zero_grad()
        loss.backward()
        for group, peak in groups:
            group["lr"] = peak * rates(step)
        try:
            for optimizer in optimizers:
                optimizer.step()
        except PoisonedOptimizerError:
            return
        report = guard.last if guard else None
        yield loss.item(), report.known_ratio if report else math.nan, report.scale if report else 1.0
