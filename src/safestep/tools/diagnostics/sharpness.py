"""The sharpness: the ends of the Hessian's spectrum, and what they say of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from safestep.formulas.quadratic_ratio import margin, spectral_radius
from safestep.jvp.replay import no_trace
from safestep.recording.forwards import Forwards
from safestep.recording.step import Step
from safestep.records.report import StepReport
from safestep.tools.diagnostics.hessian_products import Hessian, Lanczos
from safestep.tools.diagnostics.loss import Closure
from safestep.tools.diagnostics.start import at_start


class Sharpness:
    r"""Records the smallest and largest eigenvalue of the Hessian where a step started, and the margins of plain SGD.

    ============================  ======================================================================
    hessian_lambda_max            ``lambda_max``, the sharpness
    hessian_lambda_min            ``lambda_min``
    hessian_spectral_norm         ``||H||_2 = max |lambda|``
    stability_margin_lambda_raw   ``eta lambda_max``: gradient descent on a quadratic converges below 2
    stability_margin_norm_raw     ``eta ||H||_2``
    spectral_radius_raw           ``max |eig(I - eta H)|``
    ..._ctrl                      the same three with ``alpha eta``, alpha the scale that was applied
    ============================  ======================================================================

    ``eta`` is the rate of the first parameter group. All columns are nan where loss or gradient are not finite.

    Args:
        closure: the loss of the batch that the step was taken on, twice differentiable; see `Loss`.
        dense: up to how many parameters the whole Hessian is built, exact to rounding; above it Lanczos iterations
            find both ends, each started where the last step found them.
        tolerance: of Lanczos, relative to ``||H||_2``.

    Example:
        >>> import safestep
        >>> model = torch.nn.Linear(1, 2)
        >>> x, y = torch.tensor([[2.0], [-2.0]]), torch.tensor([0, 1])
        >>> sharpness = Sharpness(lambda: torch.nn.functional.cross_entropy(model(x), y))
        >>> torch.nn.init.zeros_(model.weight).data, torch.nn.init.zeros_(model.bias).data
        (tensor([[0.],
                [0.]]), tensor([0., 0.]))
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> guard = safestep.attach(model, sgd, policy=safestep.Watch(), diagnostics=[sharpness])
        >>> torch.nn.functional.cross_entropy(model(x), y).backward(); sgd.step()
        >>> round(guard.last.extras["hessian_lambda_max"], 5)  # 2 x^2 P (1 - P)
        2.0

    Note:
        A Hessian-vector product costs about two backward passes; Lanczos takes some twenty a step and memory for as
        many copies of the parameters. The eigenvalues are found to about the precision of the parameters' dtype
        times ``||H||_2``. Where torch has no second derivative (sparse gradients, ``EmbeddingBag``) the guard says so
        once and records nothing. With momentum or Adam the margins are those of plain SGD at this rate.
    """

    def __init__(self, closure: Closure, *, dense: int = 64, tolerance: float = 1e-5) -> None:
        self._closure, self._dense, self._lanczos = closure, max(dense, 2), Lanczos(tolerance)

    def __call__(self, step: Step, forwards: Forwards, report: StepReport) -> Mapping[str, float]:
        """Return the columns."""
        low, high = self._ends(step, forwards)
        norm = max(abs(low), abs(high))
        columns = {"hessian_lambda_max": high, "hessian_lambda_min": low, "hessian_spectral_norm": norm}
        eta = report.lrs[0] if report.lrs else math.nan
        for name, rate in (("raw", eta), ("ctrl", report.scale * eta)):
            columns |= {
                f"stability_margin_lambda_{name}": margin(rate, high),
                f"stability_margin_norm_{name}": margin(rate, norm),
                f"spectral_radius_{name}": spectral_radius(rate, low, high),
            }
        return columns

    def _ends(self, step: Step, forwards: Forwards) -> tuple[float, float]:
        moving = [parameter for parameter in step.start if parameter.requires_grad]
        with at_start(step, forwards), no_trace(forwards.model), torch.enable_grad():
            hessian = Hessian(self._closure, moving)
            if not hessian.finite:
                return math.nan, math.nan
            if hessian.size <= self._dense:
                matrix = hessian.dense()
                if not bool(matrix.isfinite().all()):
                    return math.nan, math.nan
                values = torch.linalg.eigvalsh(matrix)
                return float(values[0]), float(values[-1])

            def product(vector: torch.Tensor) -> torch.Tensor:
                result = hessian @ vector
                if not bool(result.isfinite().all()):
                    raise FloatingPointError("a product with the Hessian is not finite: no iteration would end")
                return result

            try:
                return self._lanczos.ends(product, hessian.size)
            except FloatingPointError:
                return math.nan, math.nan
