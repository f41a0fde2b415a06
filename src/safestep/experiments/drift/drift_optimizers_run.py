"""One run of a student whose inputs drift, with the loss of all samples before every step, and what it comes to."""

from __future__ import annotations

import itertools
import math
import statistics
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from safestep.errors import PoisonedOptimizerError, SafestepWarning
from safestep.experiments.drift.drift_optimizers_cases import BATCHES, LAWS, OPTIMIZERS, STUDENTS, rate_of
from safestep.guard.attach import attach
from safestep.lab.tasks import shuffled

HOPELESS = 0.5
"""A run has diverged if its last loss is not below this share of the first of all, and of that when the drift came."""
PILOTS = (1001, 1002, 1003)
"""Seeds of the runs that targets come from."""


@dataclass(frozen=True)
class DriftCase:
    """What one run is, but for its seed, in the names of the settings; under the law None it has no guard at all."""

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
class DescentStep:
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


def descend(case: DriftCase, seed: int) -> Iterator[DescentStep]:
    """Train, drift, and yield every step; the end is where a loss is not finite, that step included.

    Runs of a seed that differ in the law or the rate begin alike and meet the same batches.
    """
    lesson = STUDENTS[case.student](seed)
    model, optimizer = lesson.model, OPTIMIZERS[case.optimizer](lesson.model.parameters(), lr=case.lr)
    guard = None
    if case.law is not None:
        policy, radius = LAWS[case.law](case.chi, lesson.name)
        guard = attach(model, optimizer, policy=policy, radius=radius, history=0)
    size, generator = BATCHES[case.batch], torch.Generator().manual_seed(seed)
    batches: Iterator[Tensor | slice] = itertools.repeat(slice(None))
    if size is not None:
        batches = shuffled(len(lesson.inputs), size, generator)
    inputs = lesson.inputs
    for step in range(case.warm_up + case.steps):
        if step == case.warm_up:
            inputs = case.gain * inputs
        with torch.no_grad():
            loss = lesson.loss(model(inputs), lesson.labels).item()
        if not math.isfinite(loss):
            yield DescentStep(loss, "diverged")
            return
        batch = next(batches)
        optimizer.zero_grad()
        lesson.loss(model(inputs[batch]), lesson.labels[batch]).backward()
        before = guard.last if guard else None
        with warnings.catch_warnings(), suppress(PoisonedOptimizerError):  # the rows tell what became of every step
            warnings.simplefilter("ignore", SafestepWarning)
            optimizer.step()
        report = guard.last if guard else None
        if report is not None and report is not before:
            yield DescentStep(loss, str(report.status), report.known_ratio, report.scale)
        else:
            yield DescentStep(loss, "still", 0.0) if guard else DescentStep(loss)


@lru_cache(maxsize=256)
def target_loss(student: str, optimizer: str, batch: str, gain: float, warm_up: int, steps: int) -> float:
    """Return the loss that steps are counted to: what quiet runs without a guard have come to 0.4 of the way.

    It is the median of three runs of seeds of their own, and is known before any run that is judged by it.
    """
    lr = rate_of(student, optimizer, batch, "quiet")
    case = DriftCase(student, optimizer, batch, lr, None, 1.5, gain, warm_up, steps)
    place = warm_up + round(0.4 * steps)
    reached = [[line.loss for line in descend(case, seed)] for seed in PILOTS]
    return statistics.median(losses[min(place, len(losses) - 1)] for losses in reached)


def outcome_of(lines: Sequence[DescentStep], warm_up: int, target: float) -> dict[str, Any]:
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
        >>> lines = [DescentStep(loss, "inside", 0.5) for loss in (9.0, 4.0, 5.0, 0.5)]
        >>> row = outcome_of(lines, warm_up=1, target=1.0)
        >>> row["first_loss"], row["peak_loss"], row["steps_to_target"], row["diverged"]
        (4.0, 5.0, 2, False)
    """
    losses = [line.loss for line in lines[warm_up:]] or [math.nan]
    reached = next((step for step, loss in enumerate(losses) if loss <= target), None)
    counted = lines if reached is None else lines[: warm_up + reached]
    statuses = Counter(line.status for line in lines)
    return {
        "first_loss": losses[0],
        "peak_loss": max(losses) if all(map(math.isfinite, losses)) else math.inf,
        "final_loss": losses[-1],
        "diverged": not (losses[-1] < HOPELESS * losses[0] and losses[-1] < HOPELESS * lines[0].loss),
        "target_loss": target,
        "steps_to_target": math.inf if reached is None else reached,
        "held_share": statistics.fmean(line.status == "held" for line in counted),
        "shortened_share": statistics.fmean(0.0 < line.scale < 1.0 for line in counted),
        "uphill_share": statistics.fmean(line.ratio == math.inf for line in counted),
        "statuses": ", ".join(f"{status} {count}" for status, count in statuses.most_common()),
    }
