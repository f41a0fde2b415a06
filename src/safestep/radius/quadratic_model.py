"""The quadratic model of a loss along one step, added up from what each forward tells of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from safestep.distributed.dtensor import whole
from safestep.errors import MeasurementError, NothingToMeasureError
from safestep.heads.output import Output
from safestep.jvp.replay import without_autocast
from safestep.radius.losses import LossTerms
from safestep.radius.spreads import active_rows, head_of

_CHUNK = 1 << 18
"""Elements of the logits that are looked at at a time: no further tensor of their size is made, and a CPU is fastest
with temporaries of a megabyte."""


class QuadraticTerms(NamedTuple):
    """What one rank found, for a direction ``p / unit``: see `Quadratic`."""

    curvature: float
    directional_derivative: float
    half_l1_logit_grad: float
    likely: float
    rough: float

    def over(self, factor: float) -> QuadraticTerms:
        """Return the same for a direction that is shorter by a factor."""
        return self._replace(
            curvature=self.curvature / factor**2, directional_derivative=self.directional_derivative / factor
        )


class QuadraticModel:
    """Adds up the quadratic model along one step, forward by forward.

    Args:
        loss: which loss.

    Attributes:
        curvature: ``p.Gp / unit^2`` of the losses of all rows, not yet averaged.
        directional_derivative: ``g.p / unit``.
        count: over how much a mean goes.
        half_l1_logit_grad: ``||dL/dz||_1 / 2``, where it was looked at.
        likely: the same for hard labels and a sum over rows; 0 where it was not looked at.
    """

    def __init__(self, loss: LossTerms) -> None:
        self.curvature = self.directional_derivative = self.half_l1_logit_grad = self.likely = 0.0
        self._loss, self._rows = loss, 0
        self._parts: list[tuple[float, int]] = []

    @property
    def count(self) -> int:
        """Over how much a mean goes.

        Raises:
            MeasurementError: if there is nothing.
        """
        if not self._rows:
            raise NothingToMeasureError(
                "the recorded forward holds no samples (an empty batch): nothing to measure r on"
            )
        return self._rows

    @property
    def even(self) -> bool:
        """Whether every forward has as many rows as every other, so that they weigh alike in any mean."""
        return len({rows for _, rows in self._parts}) <= 1

    @property
    def mean(self) -> float:
        """``p.Gp / unit^2`` of the mean: over all rows, or of the means of the forwards if that bends more."""
        pooled = self.curvature / self.count
        if self.even:
            return pooled
        return max(pooled, sum(curvature / rows for curvature, rows in self._parts if rows) / len(self._parts))

    def add(self, output: Output, value: Tensor, tangent: Tensor, gradient: Tensor, *, check: bool) -> None:
        """Add an output of a forward: its values, ``J p / unit`` and dL/dz, all as the model returns them.

        Raises:
            MeasurementError: if its rows cannot be told from its outputs, or are single classes.
        """
        head = head_of(output)
        value, tangent, gradient = head.read(value), head.read(tangent), head.read_gradient(gradient)
        if value.ndim == 1 and not (self._loss.entries or self._loss.ignores):
            raise MeasurementError(
                f"an output of shape {tuple(value.shape)}: half_mse is a mean over samples, and one dimension does not "
                "tell samples from outputs; give the model's output the shape (samples, 1)"
            )
        if value.shape[-1] == 1 and self._loss.ignores:
            raise MeasurementError(
                "one output under CurvatureRadius('cross_entropy'): the probability of a single class is 1 whatever "
                "the step does. Say which loss it is: CurvatureRadius('mse'), ('half_mse') or ('bce')"
            )
        active = active_rows(output, value).flatten() if self._loss.ignores else _all_rows(value)
        rows = self._loss.count(active, value.shape[-1])
        pieces = _pieces(value, tangent, gradient, active)
        masked = value.numel() > 0 and bool(whole(value.amin()) == -math.inf)
        # what is added up is read from the device at the end, not piece by piece
        with without_autocast(value.device.type):
            found = [self._sums(*piece, check=check, masked=masked) for piece in pieces] or [torch.zeros(4)]
        sums = torch.stack(found).sum(0).tolist()
        self._rows += rows
        self._parts.append((sums[0], rows))
        self.curvature, self.directional_derivative = self.curvature + sums[0], self.directional_derivative + sums[1]
        self.half_l1_logit_grad, self.likely = self.half_l1_logit_grad + sums[2], self.likely + sums[3]

    def _sums(
        self, value: Tensor, tangent: Tensor, gradient: Tensor, active: Tensor, *, check: bool, masked: bool
    ) -> Tensor:
        weighted = self._loss.weighted
        bends = self._loss.curvature(value, tangent) if weighted is None else weighted(value, tangent, gradient)
        curvatures = torch.where(active, whole(bends), 0.0)
        if masked:  # a class masked by a logit of -inf may have tangent nan; its gradient is 0
            tangent = torch.where(gradient == 0, 0.0, tangent)
        derivatives = whole(torch.linalg.vecdot(gradient.to(tangent.dtype), tangent))
        # Over the rows in float64: terms of both signs cancel, and the sign of g.p decides.
        directional_derivative = derivatives.sum(dtype=torch.float64)
        sums = [curvatures.sum(dtype=torch.float64), directional_derivative]
        if check and self._loss.likely is not None:
            likely = torch.where(active, whole(self._loss.likely(value, gradient)), 0.0)
            half_l1_logit_grad = whole(gradient.abs().sum(dtype=torch.float64)) / 2
            return torch.stack([*sums, half_l1_logit_grad, likely.sum(dtype=torch.float64)])
        return torch.stack([*sums, directional_derivative.new_zeros(()), directional_derivative.new_zeros(())])


def _all_rows(value: Tensor) -> Tensor:
    return torch.ones(value.numel() // max(1, value.shape[-1]), dtype=torch.bool, device=value.device)


def _pieces(value: Tensor, tangent: Tensor, gradient: Tensor, active: Tensor) -> Iterator[tuple[Tensor, ...]]:
    few = max(1, _CHUNK // max(1, value.shape[-1]))
    rows = (torch.atleast_2d(tensor).flatten(0, -2) for tensor in (value, tangent, gradient))
    return zip(*(tensor.split(few) for tensor in (*rows, active)), strict=True)
