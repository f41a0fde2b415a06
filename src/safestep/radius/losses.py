"""The losses of a curvature radius: how much they bend along a step, and over what they are averaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from safestep.formulas.quadratic_ratio import sigmoid_bend, softmax_bend, square_bend
from safestep.heads.model_heads import Wanted

LossName = Literal["cross_entropy", "bce", "half_mse", "mse"]
Reduction = Literal["mean", "sum"]


class NamedLoss(Protocol):
    """What a radius is given of the loss, see `safestep.radius.curvature.CurvatureRadius`."""

    @property
    def loss(self) -> LossName: ...  # noqa: D102
    @property
    def reduction(self) -> Reduction: ...  # noqa: D102
    @property
    def scale(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class LossTerms:
    """A loss that is a sum, or a mean, over the rows of the logits.

    Attributes:
        curvature: second derivatives of the rows' losses along a step, from logits and ``J p``, both of shape
            ``(rows, outputs)``.
        entries: whether a mean is over all entries of the output, rather than over its rows.
        ignores: whether rows without a gradient (ignored labels, padding) are left out of the mean.
        wanted: which outputs of the model it can be the loss of.
        likely: what ``||G||_1 / 2`` of each row would be with hard labels and weight 1, from logits and ``G``; None
            where the gradient does not tell the labels.
        weighted: as ``curvature``, and from ``G`` too: with the weights that a loss gives the rows, and its scale.
    """

    curvature: Callable[[Tensor, Tensor], Tensor]
    entries: bool = False
    ignores: bool = False
    wanted: Wanted = "any"
    likely: Callable[[Tensor, Tensor], Tensor] | None = None
    weighted: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None

    def count(self, active: Tensor, outputs: int) -> int:
        """Return over how many rows, or entries, a mean would go."""
        # where no row has a gradient, none bends: over what zero is averaged does not matter
        rows = max(1, int(active.sum())) if self.ignores and active.numel() else active.numel()
        return rows * outputs if self.entries else rows


def _softmax_effort(logits: Tensor, gradient: Tensor) -> Tensor:
    """``G = P - onehot(y)`` is negative at the label alone: ``1 - P_y``."""
    label = gradient.argmin(-1, keepdim=True)
    return 1.0 - torch.softmax(logits, -1).gather(-1, label).squeeze(-1)


def _sigmoid_effort(logits: Tensor, gradient: Tensor) -> Tensor:
    """``G = P - y`` is negative where ``y = 1``."""
    return torch.where(gradient < 0, torch.sigmoid(-logits), torch.sigmoid(logits)).sum(-1) / 2


LOSSES: dict[LossName, LossTerms] = {
    "cross_entropy": LossTerms(softmax_bend, ignores=True, wanted="cross_entropy", likely=_softmax_effort),
    "bce": LossTerms(sigmoid_bend, entries=True, wanted="sigmoid", likely=_sigmoid_effort),
    "half_mse": LossTerms(lambda _, tangent: square_bend(tangent)),
    "mse": LossTerms(lambda _, tangent: 2 * square_bend(tangent), entries=True),
}
"""The losses by name."""
