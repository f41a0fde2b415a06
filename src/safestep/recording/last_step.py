"""Some coordinates of the last step, as it was applied: enough to tell how the loss slopes along it later."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safestep.distributed.dtensor import is_sharded
from safestep.recording.step import Step

_MOST = 1 << 15
"""Coordinates that are kept: few enough for a checkpoint, and for no pass over the parameters."""


@dataclass(frozen=True, slots=True)
class LastStep:
    """Where evenly spread coordinates of a step began and ended.

    Attributes:
        starts: of each parameter the coordinates before the step.
        ends: the same after it, as it was scaled.
        index: number of the step.
        scale: by what the proposed step was multiplied.
        stride: from one coordinate to the next; 1 for models of fewer coordinates than are kept.
    """

    starts: dict[Tensor, Tensor]
    ends: dict[Tensor, Tensor]
    index: int
    scale: float
    stride: int

    @classmethod
    @torch.no_grad()
    def of(cls, step: Step) -> LastStep | None:
        """Return what is kept of a step that stands as it was applied; None for sharded parameters."""
        if not step.start or any(map(is_sharded, step.start)):
            return None
        stride = math.ceil(sum(q.numel() for q in step.start) / _MOST) | 1  # odd: widths are often even
        starts = {q: _some(start, stride).clone() for q, start in step.start.items() if q.numel()}
        return cls(starts, {q: _some(q, stride).clone() for q in starts}, step.index, step.scale, stride)

    @torch.no_grad()
    def slope(self, parameters: Iterable[Tensor]) -> Tensor | None:
        """Return ``g.q`` of these parameters, estimated from the coordinates; nan where they are not where they were.

        Args:
            parameters: whose gradients are stored now.

        Returns:
            A 0-d float64 tensor; None if none of them moved in the last step.
        """
        found = []
        for q in parameters:
            if (start := self.starts.get(q)) is None:
                continue
            end, gradient, now = self.ends[q], q.grad, _some(q, self.stride)
            if now.shape != end.shape or now.dtype != end.dtype or now.device != end.device:
                return _lost()
            if gradient is None:
                continue
            if gradient.layout is not torch.strided or gradient.is_complex():
                return _lost()
            product = (_some(gradient, self.stride).double() * (end.double() - start.double())).sum()
            product = product * (q.numel() / end.numel())
            found.append(torch.where((now == end).all(), product, math.nan))
        if not found:
            return None
        return torch.stack([product.to(found[0].device) for product in found]).sum()

    def as_state(self, parameters: Sequence[Tensor]) -> dict[str, Any]:
        """Return plain data, for a checkpoint, by the place of each parameter."""
        places = {q: place for place, q in enumerate(parameters)}
        pairs = {places[q]: [start, self.ends[q]] for q, start in self.starts.items() if q in places}
        return {"pairs": pairs, "index": self.index, "scale": self.scale, "stride": self.stride}

    @classmethod
    def from_state(cls, state: dict[str, Any], parameters: Sequence[Tensor]) -> LastStep:
        """Return the last step of a checkpoint, for the parameters of this model."""
        pairs = {parameters[place]: pair for place, pair in state["pairs"].items() if place < len(parameters)}
        starts, ends = ({q: pair[side].to(q.device) for q, pair in pairs.items()} for side in (0, 1))
        return cls(starts, ends, state["index"], state["scale"], state["stride"])


def _lost() -> Tensor:
    return torch.full((), math.nan, dtype=torch.float64, device="cpu")


def _some(tensor: Tensor, stride: int) -> Tensor:
    return tensor.detach().flatten()[::stride]  # a view of most
