"""Every column of the published throttle runs, as one list of diagnostics."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from safestep.guard.diagnose import Diagnostic
from safestep.tools.diagnostics.finite import Finite
from safestep.tools.diagnostics.geometry import Geometry
from safestep.tools.diagnostics.loss import Closure, Loss
from safestep.tools.diagnostics.secant_columns import Secant
from safestep.tools.diagnostics.sharpness import Sharpness
from safestep.tools.diagnostics.teacher import Teacher

FIELDS = (
    "loss",
    "rmse",
    "theta_norm",
    "grad_norm",
    "raw_update_norm",
    "actual_update_norm",
    "update_cosine",
    "curvature_proxy",
    "curvature_ema",
    "alpha",
    "alpha_would",
    "curvature_for_control",
    "eta_eff",
    "forward_gain_spectral",
    "hessian_lambda_max",
    "hessian_lambda_min",
    "hessian_spectral_norm",
    "stability_margin_lambda_raw",
    "stability_margin_lambda_ctrl",
    "stability_margin_norm_raw",
    "stability_margin_norm_ctrl",
    "spectral_radius_raw",
    "spectral_radius_ctrl",
    "weight_error_fro",
    "loss_is_finite",
    "grad_is_finite",
    "theta_is_finite_before",
    "theta_is_finite_after",
    "diverged",
)
"""The columns, in the order in which they were published."""


def published(
    closure: Closure,
    *,
    square: float,
    weights: Sequence[Tensor],
    reference: Tensor,
    chi: float = 1.5,
    beta: float = 0.05,
    sharpness: bool = True,
) -> list[Diagnostic]:
    """Return diagnostics that record `FIELDS`.

    Args:
        closure: the loss of the batch that a step is taken on; see `Loss`.
        square: the loss over the mean squared error; see `Loss`.
        weights: the student's matrices from input to output; none for a student that is not linear. See `Teacher`.
        reference: what the student should become.
        chi: the aim of the published law.
        beta: share of the newest curvature in its mean.
        sharpness: whether the Hessian is looked at, the most expensive part; without it its columns are left out.
    """
    loss = Loss(closure, square)
    always: list[Diagnostic] = [loss, Geometry(), Secant(chi, beta), Teacher(weights, reference)]
    return [*always, *([Sharpness(closure)] if sharpness else []), Finite(loss)]
