"""The exact r of what a step did, by torch.func.jvp in float64 on a copy of the model: over all heads and all rows."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_SHORT = 1e-4

Read = Callable[[Any], Sequence[Tensor]]
"""From the output of the model to its heads, as the loss reads them, classes last."""


class Truth:
    """Remembers where a model stands; tells r of what has moved since.

    Args:
        model: before the step.
        read: the heads in its output.
        rows: which rows of a head count, as many as samples; None for all.
    """

    def __init__(self, model: nn.Module, read: Read = lambda out: [out], rows: Tensor | None = None) -> None:
        self._twin, self._read, self._rows = copy.deepcopy(model).double(), read, rows

    def ratio(self, model: nn.Module, *args: Any, sigmoid: bool = False, **kwargs: Any) -> float:
        """Return r of the displacement of ``model``, on these arguments."""
        start = {name: p.detach() for name, p in self._twin.named_parameters()}
        moved = {name: p.detach().double() - start[name] for name, p in model.named_parameters()}
        wide, named = [_wide(value) for value in args], {key: _wide(value) for key, value in kwargs.items()}

        def heads(parameters: dict[str, Tensor]) -> tuple[Tensor, ...]:
            return tuple(self._read(torch.func.functional_call(self._twin, parameters, tuple(wide), named)))

        _, tangents = torch.func.jvp(heads, (start,), (moved,))
        return max(self._largest(tangent, sigmoid=sigmoid) for tangent in tangents) / math.pi

    def by_difference(self, model: nn.Module, *args: Any) -> float:
        """Return the same by a difference, for models that write to what they hold: each run is of a fresh copy."""
        start = {name: p.detach().clone() for name, p in self._twin.named_parameters()}
        moved = {name: p.detach().double() - start[name] for name, p in model.named_parameters()}

        def at(t: float) -> Sequence[Tensor]:
            twin = copy.deepcopy(self._twin)
            with torch.no_grad():
                for name, p in twin.named_parameters():
                    p.copy_(start[name] + t * moved[name])
            return self._read(twin(*map(_wide, args)))

        pairs = zip(at(_SHORT), at(-_SHORT), strict=True)
        tangents = [(there - here).detach() / (2 * _SHORT) for there, here in pairs]
        return max(self._largest(tangent, sigmoid=False) for tangent in tangents) / math.pi

    def _largest(self, tangent: Tensor, *, sigmoid: bool) -> float:
        spreads = tangent.abs().amax(-1) if sigmoid else tangent.amax(-1) - tangent.amin(-1)
        return (spreads if self._rows is None else spreads[self._rows]).max().item()


def _wide(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
