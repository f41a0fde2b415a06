"""Some coordinates of the last step, as it was applied: enough to tell how the loss slopes along it later."""

from __future__ import annotations

import functools
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
_RUN = 16
"""Neighbours that are kept together: of a line of memory that is fetched for one number, all are had."""
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True, slots=True)
class LastStep:
    """Where evenly spread coordinates of a step began and ended.

    Attributes:
        starts: of each parameter the coordinates before the step.
        ends: the same after it, as it was scaled.
        index: number of the step.
        scale: by what the proposed step was multiplied.
        stride: of so many coordinates one is kept, in runs of neighbours; 1 for models of fewer than are kept.
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
        stride = math.ceil(sum(q.numel() for q in step.start) / _MOST)
        starts = {q: _some(start, stride) for q, start in step.start.items() if q.numel()}
        return cls(starts, {q: _some(q, stride) for q in starts}, step.index, step.scale, stride)

    @torch.no_grad()
    def holds(self, parameters: Iterable[Tensor]) -> Tensor:
        """Return 0 if these parameters are where the last step left them, nan if not: a 0-d float64 tensor."""
        kept = [(q, end) for q in parameters if (end := self.ends.get(q)) is not None]
        if not all(_alike(q, end, self.stride) for q, end in kept):
            return _number(math.nan)
        same = [(_some(q, self.stride) == end).all() for q, end in kept]
        home = same[0].device if same else torch.device("cpu")
        zero = torch.zeros((), dtype=torch.float64, device=home)
        return torch.where(torch.stack([one.to(home) for one in same]).all(), zero, math.nan) if same else zero

    @torch.no_grad()
    def slope(self, parameters: Iterable[Tensor]) -> Tensor:
        """Return ``g.q`` of these parameters, estimated from the coordinates: a 0-d float64 tensor, nan if not known.

        Args:
            parameters: whose gradients are stored now.
        """
        found = []
        for q in parameters:
            if (start := self.starts.get(q)) is None:
                continue
            gradient = q.grad
            if gradient is None and q.requires_grad:
                continue  # the loss does not depend on it
            if gradient is None or gradient.layout is not torch.strided or gradient.is_complex():
                return _number(math.nan)
            move = self.ends[q].double() - start.double()
            product = (_some(gradient, self.stride).double() * move).sum() * (q.numel() / start.numel())
            found.append(product)
        return torch.stack([product.to(found[0].device) for product in found]).sum() if found else _number(0.0)

    def within(self, parameters: Iterable[Tensor]) -> bool:
        """Return whether all that moved in the last step is among these parameters."""
        return self.starts.keys() <= set(parameters)

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


def _number(value: float) -> Tensor:
    return torch.full((), value, dtype=torch.float64, device="cpu")


def _alike(parameter: Tensor, end: Tensor, stride: int) -> bool:
    run = 1 if stride == 1 else min(_RUN, parameter.numel())
    count = math.ceil(parameter.numel() / (run * stride)) * run
    return (count, parameter.dtype, parameter.device) == (end.numel(), end.dtype, end.device)


def _some(tensor: Tensor, stride: int) -> Tensor:
    """Return a copy of one coordinate of every ``stride``, which one as good as drawn, whatever the shape."""
    tensor = tensor.detach()
    if stride == 1:
        return tensor.flatten().clone()
    run = min(_RUN, tensor.numel())
    starts = _starts(tensor.numel(), stride, tensor.device)
    if tensor.is_contiguous():
        return tensor.view(-1).unfold(0, run, 1).index_select(0, starts).flatten()
    places = (starts[:, None] + torch.arange(run, device=starts.device)).flatten()
    return tensor[torch.unravel_index(places, tensor.shape)]  # flatten would copy all of it


@functools.lru_cache(maxsize=1024)
def _starts(count: int, stride: int, device: torch.device) -> Tensor:
    """Return where the runs begin: of each stretch of ``run * stride`` coordinates one, at a place as good as drawn."""
    run = min(_RUN, count)
    first = torch.arange(0, count, run * stride, dtype=torch.float64, device="cpu")
    turns = torch.arange(1, len(first) + 1, dtype=torch.float64, device="cpu") * _GOLDEN
    places = (turns - turns.floor()) * (run * (stride - 1) + 1)
    return (first + places.floor()).clamp(max=count - run).long().to(device)
