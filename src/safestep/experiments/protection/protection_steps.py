"""The steps of one guarded and audited run, and what they come to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch.optim import Optimizer

from safestep.errors import PoisonedOptimizerError
from safestep.experiments.protection.protection_witness import Witness
from safestep.guard.audit import COLUMN
from safestep.guard.guard import Guard
from safestep.lab.disturbances import Disturbance
from safestep.lab.tasks import Task
from safestep.records.reading import Status

_CLEARLY_ABOVE = 1.05
"""r in units of the target that few applied steps may exceed."""


@dataclass(frozen=True)
class StepLine:
    """One step: what the guard said of it, and what is true.

    Attributes:
        loss: of the batch before the step, in nats.
        status: what the guard did; empty for a step that moved nothing.
        way: how it measured r, as `StepReport.method` has it.
        age: steps since r was last measured.
        ratio: r of the proposed step as the guard has it.
        scale: what the step was multiplied by.
        step_length: of the proposed step, in units of the parameters.
        audited_ratio: exact r of the step as applied; nan where it was not audited.
        touched: whether a step of scale 1 is not bit for bit what the optimizer made.
    """

    loss: float
    status: str
    way: str
    age: int
    ratio: float
    scale: float
    step_length: float
    audited_ratio: float
    touched: bool


def steps(
    task: Task, optimizer: Optimizer, guard: Guard, witness: Witness, disturbance: Disturbance, count: int, seed: int
) -> Iterator[StepLine]:
    """Train under a guard that is audited, a disturbance included, and yield every step.

    The witness is older than the guard. The seed is that of the order of the batches, which is the same whatever the
    guard does.
    """
    generator = torch.Generator().manual_seed(seed)
    batches = task.batches(disturbance.batch_size or task.batch_size, generator)
    dealing = torch.Generator().manual_seed(seed)
    rates = [group["lr"] for group in optimizer.param_groups]
    task.model.train()
    for step in range(count):
        wrong = disturbance.at(step, of=count)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * wrong.rate_factor
        inputs, labels = next(batches)
        optimizer.zero_grad()
        loss = task.loss(inputs, wrong.labels(labels, dealing), wrong.input_factor)
        loss.backward()
        before = guard.last
        with suppress(PoisonedOptimizerError):  # a run that can only stand still is recorded to its end
            optimizer.step()
        report = guard.last
        if report is None or report is before or report.status is Status.STILL:
            yield StepLine(loss.item(), "", "", 0, 0.0, 1.0, 0.0, math.nan, touched=False)
            continue
        yield StepLine(
            loss=loss.item(),
            status=str(report.status),
            way=report.method,
            age=report.age,
            ratio=report.known_ratio,
            scale=report.scale,
            step_length=report.step_length,
            audited_ratio=report.extras.get(COLUMN, math.nan),
            touched=report.scale == 1.0 and not witness.untouched(),
        )


def columns(lines: Sequence[StepLine]) -> dict[str, list[Any]]:
    """Return steps as one list per column, for a record."""
    rows = [asdict(line) for line in lines]
    return {field.name: [row[field.name] for row in rows] for field in fields(StepLine)}


def outcome(lines: Sequence[StepLine], target: float) -> dict[str, Any]:
    """Return what the steps of a run come to, in counts and shares; all that is said of r is audited, over the target.

    ``above_105`` are audited steps clearly above the target and ``worst`` is the longest of all; ``inside`` are the
    steps the guard called so, and ``touched`` those of them not left bit for bit as they were; ``within`` are audited
    steps proposed clearly inside (exact r below ``target / 1.05``), and ``needless`` those of them that were shortened
    all the same; ``capped_median`` is where shortened steps end, 1 if all were cut to the target itself.

    Example:
        >>> inside = StepLine(2.3, "inside", "skip/train", 3, 0.5, 1.0, 0.1, 0.4, touched=False)
        >>> capped = StepLine(2.3, "capped", "probe/train", 0, 2.0, 0.5, 0.1, 1.1, touched=False)
        >>> found = outcome([inside, inside, inside, capped], target=1.0)
        >>> found["share_above_105"], found["worst"], found["share_skipped"], found["capped_median"]
        (0.25, 1.1, 0.75, 1.1)
    """
    audited = [line for line in lines if not math.isnan(line.audited_ratio)]
    shortened = [line for line in lines if 0.0 < line.scale < 1.0]
    within = [line for line in audited if line.audited_ratio / line.scale < target / _CLEARLY_ABOVE]
    ends = [line.audited_ratio / target for line in shortened if not math.isnan(line.audited_ratio)]
    above = sum(line.audited_ratio > _CLEARLY_ABOVE * target for line in audited)
    return {
        "steps": len(lines),
        "audited": len(audited),
        "above_105": above,
        "share_above_105": above / len(audited) if audited else math.nan,
        "worst": max((line.audited_ratio / target for line in audited), default=math.nan),
        "capped": len(shortened),
        "share_capped": len(shortened) / len(lines),
        "share_skipped": sum(line.way.startswith("skip") for line in lines) / len(lines),
        "undone": sum(line.scale == 0.0 for line in lines),
        "inside": sum(line.scale == 1.0 for line in lines),
        "touched": sum(line.touched for line in lines),
        "within": len(within),
        "needless": sum(line.scale < 1.0 for line in within),
        "capped_median": statistics.median(ends) if ends else math.nan,
    }
