"""The probe of how long things are: parameters, gradient, the step as proposed and as taken."""

from __future__ import annotations

import math
from collections.abc import Mapping

from safestep.recording.forwards import Forwards
from safestep.recording.step import Step
from safestep.records.report import StepReport
from safestep.tools.probes.vectors import gradients, inner, moved, norm


class Geometry:
    r"""Records lengths in the units of the parameters, the angle a guard turned the step by, and the applied rate.

    ====================  =============================================================================
    theta_norm            ``||theta_0||``, where the step started
    grad_norm             ``||g||``, of the gradient that the optimizer saw
    raw_update_norm       ``||p||``, of the step that the optimizer proposed
    actual_update_norm    ``||theta - theta_0||``, of the step that was taken
    update_cosine         of the angle between the two: 1 but for rounding; nan where one has no length
    eta_eff               ``alpha eta``, of the first parameter group
    alpha                 the scale that was applied
    ====================  =============================================================================

    All parameters together that may move.
    """

    def __call__(self, step: Step, forwards: Forwards, report: StepReport) -> Mapping[str, float]:
        """Return the columns."""
        proposed, taken = step.displacement, moved(step)
        raw, actual = norm(proposed.values()), norm(taken.values())
        lengths = raw * actual
        return {
            "theta_norm": norm(step.start.values()),
            "grad_norm": norm(gradients(step).values()),
            "raw_update_norm": raw,
            "actual_update_norm": actual,
            "update_cosine": inner(proposed, taken) / lengths if 0.0 < lengths < math.inf else math.nan,
            "eta_eff": report.effective_lr,
            "alpha": report.scale,
        }
