"""What a linear student has learnt: its gain, and how far it is from its teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from safestep.recording.forwards import Forwards
from safestep.recording.step import Step
from safestep.records.report import StepReport


class Teacher:
    """Records ``||W||_2`` (``forward_gain_spectral``) and ``||W - A||_F`` (``weight_error_fro``) where a step started.

    Args:
        weights: the weight matrices from input to output; ``W`` is their product. Without any, both columns are nan.
        reference: ``A``, of the shape of ``W``.

    Raises:
        ValueError: if the shapes do not fit.

    Note:
        Where the step started, as every column; the published code reads the matrix after the step, so that its entry
        t is the one of step t + 1 here.
    """

    def __init__(self, weights: Sequence[Tensor], reference: Tensor) -> None:
        self._weights, self._reference = tuple(weights), reference.detach().double()
        if self._weights and (shape := self._product(self._weights).shape) != reference.shape:
            raise ValueError(f"the student is a matrix of shape {tuple(shape)}, the teacher {tuple(reference.shape)}")

    def __call__(self, step: Step, forwards: Forwards, report: StepReport) -> Mapping[str, float]:
        """Return gain and error."""
        if not self._weights:
            return {"forward_gain_spectral": math.nan, "weight_error_fro": math.nan}
        matrix = self._product([step.start.get(weight, weight) for weight in self._weights])
        finite = bool(matrix.isfinite().all())  # else the singular values are an error, not nan
        return {
            "forward_gain_spectral": float(torch.linalg.matrix_norm(matrix, 2)) if finite else math.inf,
            "weight_error_fro": float(torch.linalg.matrix_norm(matrix - self._reference.to(matrix.device))),
        }

    @staticmethod
    def _product(weights: Sequence[Tensor]) -> Tensor:
        product = weights[0].detach().double()
        for weight in weights[1:]:
            product = weight.detach().double() @ product
        return product
