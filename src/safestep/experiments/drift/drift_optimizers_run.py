"""One run of a student whose inputs drift, with the loss of all samples before every step, and where it is to get."""

from __future__ import annotations

import math
import statistics
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from safestep.errors import PoisonedOptimizerError, SafestepWarning
from safestep.experiments.drift.drift_optimizers_cases import BATCHES, LAWS, OPTIMIZERS, STUDENTS, rate_of
from safestep.guard.attach import attach
from safestep.guard.guard import Guard

HOPELESS = 0.5
"""A run has diverged if its last loss is not below this share of the first of all, and of that when the drift came."""
PILOTS = (1001, 1002, 1003)
"""Seeds of the runs that targets come from."""
_REACHED = 0.4
"""The share of its drifted steps after which a pilot has reached the target."""
GOES_UPHILL = math.inf
"""The ratio of a step with ``g.p >= 0``."""


@dataclass(frozen=True)
class Case:
    """What one run is, but for its seed.

    Attributes:
        student: of `STUDENTS`.
        optimizer: of `OPTIMIZERS`.
        batch: of `BATCHES`.
        lr: the learning rate.
        law: of `LAWS`; None runs without any guard.
        chi: the aim of a throttle.
        gain: the inputs are multiplied by it, the answers kept.
        warm_up: steps before that.
        steps: steps after it.
    """

    student: str
    optimizer: str
    batch: str
    lr: float
    law: str | None
    chi: float
    gain: float
    warm_up: int
    steps: int


@dataclass(frozen=True)
class StepLine:
    """One step.

    Attributes:
        loss: of all samples, before the step.
        status: what the guard did; "still" for a step that moved nothing, empty without a guard.
        ratio: r of the proposed step; inf where it goes uphill on its own batch.
        scale: what it was multiplied by.
    """

    loss: float
    status: str = ""
    ratio: float = math.nan
    scale: float = 1.0


def descend(case: Case, seed: int) -> Iterator[StepLine]:
    """Train, drift, and yield every step; the end is where a loss is not finite, that step included.

    Runs of a seed that differ in the law or the rate begin alike and meet the same batches.
    """
    lesson = STUDENTS[case.student](seed)
    model, optimizer = lesson.model, OPTIMIZERS[case.optimizer](lesson.model.parameters(), lr=case.lr)
    guard = None
    if case.law is not None:
        policy, radius = LAWS[case.law](case.chi, lesson.name)
        guard = attach(model, optimizer, policy=policy, radius=radius, history=0)
    chosen = batches(len(lesson.inputs), BATCHES[case.batch], torch.Generator().manual_seed(seed))
    inputs = lesson.inputs
    for step in range(case.warm_up + case.steps):
        if step == case.warm_up:
            inputs = case.gain * inputs
        with torch.no_grad():
            loss = lesson.loss(model(inputs), lesson.labels).item()
        if not math.isfinite(loss):
            yield StepLine(loss, "diverged")
            return
        batch = next(chosen)
        optimizer.zero_grad()
        lesson.loss(model(inputs[batch]), lesson.labels[batch]).backward()
        with warnings.catch_warnings(), suppress(PoisonedOptimizerError):  # the rows tell what became of every step
            warnings.simplefilter("ignore", SafestepWarning)
            before = guard.last if guard else None
            optimizer.step()
        yield _line(loss, guard, before)


def batches(samples: int, size: int | None, generator: torch.Generator) -> Iterator[Tensor | slice]:
    """Yield what to learn from next: all samples, or each pass in another order; a pass may end within a batch.

    Example:
        >>> chosen = batches(5, 3, torch.Generator().manual_seed(0))
        >>> sorted(torch.cat([next(chosen) for _ in range(5)]).tolist()) == sorted([*range(5)] * 3)
        True
    """
    waiting = torch.empty(0, dtype=torch.int64)
    while size is None:
        yield slice(None)
    while True:
        while len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(samples, generator=generator)])
        chosen, waiting = waiting[:size], waiting[size:]
        yield chosen


def _line(loss: float, guard: Guard | None, before: Any) -> StepLine:
    if guard is None:
        return StepLine(loss)
    report = guard.last
    if report is None or report is before:
        return StepLine(loss, "still", 0.0)
    return StepLine(loss, str(report.status), report.known_ratio, report.scale)


@lru_cache(maxsize=256)
def target_loss(student: str, optimizer: str, batch: str, gain: float, warm_up: int, steps: int) -> float:
    """Return the loss that steps are counted to: what quiet runs without a guard have come to 0.4 of the way.

    It is the median of three runs of seeds of their own, and is known before any run that is judged by it.
    """
    lr = rate_of(student, optimizer, batch, "quiet")
    case = Case(student, optimizer, batch, lr, None, 1.5, gain, warm_up, steps)
    place = warm_up + round(_REACHED * steps)
    reached = [[line.loss for line in descend(case, seed)] for seed in PILOTS]
    return statistics.median(losses[min(place, len(losses) - 1)] for losses in reached)


def outcome(lines: Sequence[StepLine], warm_up: int, target: float) -> dict[str, Any]:
    """Return what a run comes to.

    Args:
        lines: every step.
        warm_up: steps before the drift.
        target: the loss that steps are counted to.

    Returns:
        ``first_loss`` when the drift came, ``peak_loss`` and ``final_loss`` after it, whether it ``diverged``,
        ``steps_to_target`` after the drift (inf if it was not reached); ``held_share``, ``shortened_share`` and
        ``uphill_share`` (proposed with ``g.p >= 0``, held or not) of the steps up to there, the warm-up included; and
        how many of all steps had which status.

    Example:
        >>> lines = [StepLine(loss, "inside", 0.5) for loss in (9.0, 4.0, 5.0, 0.5)]
        >>> found = outcome(lines, warm_up=1, target=1.0)
        >>> found["first_loss"], found["peak_loss"], found["steps_to_target"], found["diverged"]
        (4.0, 5.0, 2, False)
    """
    losses = [line.loss for line in lines[warm_up:]] or [math.nan]
    reached = next((step for step, loss in enumerate(losses) if loss <= target), None)
    counted = lines if reached is None else lines[: warm_up + reached]
    statuses = Counter(line.status for line in lines)
    return {
        "first_loss": losses[0],
        "peak_loss": _largest(losses),
        "final_loss": losses[-1],
        "diverged": not (losses[-1] < HOPELESS * losses[0] and losses[-1] < HOPELESS * lines[0].loss),
        "target_loss": target,
        "steps_to_target": math.inf if reached is None else reached,
        "held_share": statistics.fmean(line.status == "held" for line in counted),
        "shortened_share": statistics.fmean(0.0 < line.scale < 1.0 for line in counted),
        "uphill_share": statistics.fmean(line.ratio == GOES_UPHILL for line in counted),
        "statuses": ", ".join(f"{status} {count}" for status, count in statuses.most_common()),
    }


def _largest(losses: Iterable[float]) -> float:
    return max(loss if math.isfinite(loss) else math.inf for loss in losses)
