"""Whether loss, gradient and parameters are finite, and whether a run has diverged."""

from __future__ import annotations

import math
from collections.abc import Mapping

from safestep.recording.forwards import Forwards
from safestep.recording.nonfinite import all_finite
from safestep.recording.step import Step
from safestep.records.report import StepReport
from safestep.tools.diagnostics.geometry import gradients
from safestep.tools.diagnostics.loss import Loss


class Finite:
    """Records whether loss, gradient and parameters are finite; a run has ``diverged`` where one is not.

    Args:
        loss: the diagnostic of the loss; it is evaluated once for both.

    Note:
        ``theta_is_finite_after`` is of the parameters as they stand after the guard acted: a step that it undid leaves
        them finite.
    """

    def __init__(self, loss: Loss) -> None:
        self._loss = loss

    def __call__(self, step: Step, forwards: Forwards, report: StepReport) -> Mapping[str, float]:
        """Return the four flags, and ``diverged``."""
        flags = {
            "loss_is_finite": math.isfinite(self._loss.at(step, forwards)),
            "grad_is_finite": all_finite(gradients(step).values()),
            "theta_is_finite_before": all_finite(step.start.values()),
            "theta_is_finite_after": all_finite(step.start),
        }
        return {**flags, "diverged": not all(flags.values())}
