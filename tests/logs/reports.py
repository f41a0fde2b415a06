"""Reports to write, and a run that brings of everything that a log has to bear."""

from __future__ import annotations

from typing import Any

import torch

from safestep import Guard, Status, StepReport
from zoo.cases import ZOO
from zoo.optimizers import ALL
from zoo.training import Training

PLAIN: dict[str, Any] = {
    "status": Status.CAPPED,
    "ratio": 4.0,
    "scale": 0.25,
    "would_scale": 0.25,
    "applied_ratio": 1.0,
    "target": 1.0,
    "radius": 0.5,
    "step_length": 2.0,
    "applied_length": 0.5,
    "lrs": (0.1, 0.2),
    "effective_lrs": (0.025, 0.05),
    "method": "forward-mode/train",
    "exact": True,
}


def report(step: int = 0, **changes: Any) -> StepReport:
    return StepReport(step=step, **(PLAIN | changes))


def inside(step: int, **changes: Any) -> StepReport:
    values = {"status": Status.INSIDE, "ratio": 0.25, "applied_ratio": 0.25, "scale": 1.0, "would_scale": 1.0}
    return report(step, **(values | changes))


def late(step: Any, seen: Any, reported: StepReport) -> dict[str, float]:
    """A probe that is silent at first, and brings a column more at the fourth step."""
    return {"twice": 2.0 * reported.step} | ({"late": float("inf")} if reported.step >= 3 else {}) if step.index else {}


def run(steps: int = 5, **options: Any) -> Guard:
    """Train under a guard; the third step has gradients that are not finite."""
    training = Training(ZOO["mlp"], ALL["SGD"], big=True)
    guard = training.attach(diagnostics=[late], **options)
    for index in range(steps):

        def poison(training: Training, index: int = index) -> None:
            if index == 2:
                next(training.model.parameters()).grad.view(-1)[0] = torch.nan

        training.step(between=poison)
    return guard


def same(left: StepReport, right: StepReport) -> bool:
    """Whether two reports are one, nan being equal to nan."""
    return repr(left) == repr(right)
