"""Lengths of parameters, gradient and step, as proposed and as taken, and the angle between the two."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from safestep.recording.forwards import Forwards
from safestep.recording.step import Parameters, Step
from safestep.records.report import StepReport


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
        proposed = step.displacement
        applied = {p: p.detach().double() - start.detach().double() for p, start in step.start.items()}
        raw, actual = norm(proposed.values()), norm(applied.values())
        lengths = raw * actual
        return {
            "theta_norm": norm(step.start.values()),
            "grad_norm": norm(gradients(step).values()),
            "raw_update_norm": raw,
            "actual_update_norm": actual,
            "update_cosine": inner(proposed, applied) / lengths if 0.0 < lengths < math.inf else math.nan,
            "eta_eff": report.effective_lr,
            "alpha": report.scale,
        }


def norm(tensors: Iterable[Tensor]) -> float:
    """Return the Euclidean norm of all elements together, in float64; 0 of none.

    Example:
        >>> norm([torch.tensor([3.0]), torch.tensor([[4.0]])])
        5.0
    """
    norms = [float(torch.linalg.vector_norm(_real(tensor), dtype=torch.float64)) for tensor in tensors]
    return float(torch.linalg.vector_norm(torch.tensor(norms, dtype=torch.float64)))


def inner(left: Parameters, right: Parameters) -> float:
    """Return the inner product of two tensors per parameter, in float64; both hold the same parameters.

    Example:
        >>> one = torch.zeros(2)
        >>> inner({one: torch.tensor([1.0, 2.0])}, {one: torch.tensor([3.0, 4.0])})
        11.0
    """
    return sum(float((_real(left[key]).double() * _real(right[key]).double()).sum()) for key in left)


def gradients(step: Step) -> Parameters:
    """Return the gradient of every parameter that may move and has one, dense, as the optimizer saw it."""
    return {
        parameter: parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
        for parameter in step.start
        if parameter.grad is not None
    }


def _real(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
