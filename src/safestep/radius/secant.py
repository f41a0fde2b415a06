"""The secant curvature: how fast the gradient changed over the last step, as published for the global throttle."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from safestep.distributed.dtensor import any_sharded
from safestep.errors import MeasurementError
from safestep.formulas.throttle_laws import running_mean, secant_curvature
from safestep.radius.radius import Radius, State
from safestep.recording.proposal import Proposal
from safestep.records.reading import Reading

_STILL = 8.0
"""Moves of at most this many units in the last place of theta tell nothing: the change of g is their rounding."""


@dataclass(frozen=True)
class SecantCurvature(Radius):
    r"""Limits the published margin of plain SGD, from two gradients in a row.

    Equation:
        ``C_t = ||g_t - g_{t-1}|| / ||theta_t - theta_{t-1}||``, ``S_t = (1 - beta) S_{t-1} + beta C_t`` from 0,
        ``r = max(C_t, S_t) ||p|| / (2 ||g_t||)``. The published margin is ``2 r``, ``eta max(C, S)`` for plain SGD.

    Attributes:
        beta: share of the newest value in the running mean, in [0, 1].

    Raises:
        ValueError: at construction, for a beta outside [0, 1].

    Example:
        >>> SecantCurvature().beta
        0.05

    Note:
        The first step of a new guard is unprotected: there is no difference yet. Gradients are those of two batches, so
        noise counts as curvature, and where the data jump the difference spans the jump: that step is far too short,
        and the running mean keeps the next ones short for long. It is meant for plain SGD: with momentum 0.9 it does
        not protect. `CurvatureRadius` has none of these weaknesses. Gradients and parameters of the last step are kept,
        and are part of ``guard.state_dict()``.

        Where the parameters did not move, up to rounding, the last ``C`` stands; where the gradient is zero, r = 0
        whatever momentum still moves.

    Reference:
        M. Blanco Valentin, ENABOL / kappa, experiment 000, repository manuelblancovalentin/kappa_budgeting.
    """

    beta: float = 0.05

    def __post_init__(self) -> None:
        """Check the share."""
        if not 0.0 <= self.beta <= 1.0:
            raise ValueError(f"beta={self.beta!r}: expected a share in [0, 1]")

    @torch.no_grad()
    def measure(self, proposal: Proposal, state: State) -> tuple[Reading, State]:
        """Return r of a step, and what the next one is compared with. See `Radius.measure`."""
        step = proposal.step
        if any_sharded(step.start):
            raise MeasurementError(
                "the parameters are DTensors: SecantCurvature compares whole gradients of two steps, of which a rank "
                "holds a piece; use CurvatureRadius"
            )
        parameters, gradients = list(step.start.values()), [_gradient(parameter) for parameter in step.start]
        known = _LastStep(**(state or {}))
        curvature, comparable = known.curvature, known.comparable(parameters)
        if comparable:
            distance = _distance(parameters, known.parameters)
            if distance > _STILL * torch.finfo(parameters[0].dtype).eps * _length(parameters):
                curvature = secant_curvature(_distance(gradients, known.gradients), distance)
        mean, length = running_mean(known.mean, curvature, self.beta), _length(gradients)
        if not math.isfinite(length):  # though the step is: nothing to tell r by, or to compare the next one with
            return Reading(step.index, math.nan, "secant", False), state
        ratio = max(curvature, mean) * step.length / (2.0 * length) if length > 0.0 else 0.0
        message = "" if comparable else "no earlier gradient to compare with: this step is unprotected"
        later = _LastStep(curvature, mean, [t.clone() for t in parameters], [t.clone() for t in gradients])
        return Reading(step.index, ratio, "secant", False, message), later.as_state()


@dataclass(frozen=True, slots=True)
class _LastStep:
    """What the last step left: its secant curvature, the running mean, theta and g."""

    curvature: float = 0.0
    mean: float = 0.0
    parameters: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)

    def comparable(self, parameters: list[Tensor]) -> bool:
        """Return whether the same parameters moved in the last step."""
        return bool(self.parameters) and [t.shape for t in self.parameters] == [t.shape for t in parameters]

    def as_state(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def _gradient(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    if gradient is None:
        return torch.zeros_like(parameter)
    if gradient.layout is not torch.strided:
        raise MeasurementError(
            f"a gradient with layout {gradient.layout}: SecantCurvature compares dense gradients; use CurvatureRadius, "
            "or sparse=False in the layer"
        )
    return gradient


def _distance(tensors: list[Tensor], others: list[Tensor]) -> float:
    return _length(a - b.to(a) for a, b in zip(tensors, others, strict=True))


def _length(tensors: Iterable[Tensor]) -> float:
    return math.hypot(*(torch.linalg.vector_norm(t, dtype=_wide(t)).item() for t in tensors))


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64
