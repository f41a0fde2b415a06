"""Rules of operations that pick elements: embeddings and the largest of a window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from safestep.tape.rules import Call, Tangents, only, passive, rule

_SUM, _MEAN, _MAX = range(3)


@rule("embedding", keeps=only(1))
def embedding(call: Call) -> Tangents:
    """Return the rows of the table's tangent."""
    return torch.embedding(call.dots[0], call.args[1])


def _weighted_and_largest(get: Callable[[str], Any]) -> str:
    return "mode 'max' with weights" if get("mode") == _MAX and get("per_sample_weights") is not None else ""


@rule("_embedding_bag", "_embedding_bag_forward_only", results=(3,), refuses=_weighted_and_largest)
def embedding_bag(call: Call) -> Tangents:
    """Return the bags of the table's tangent, plus those of the table under the weights' tangent."""
    table, weights, dtable = call.args[0], call["per_sample_weights"], call.dots[0]
    dweights = call.dots[6] if len(call.dots) > 6 else None
    if call["mode"] == _MAX:
        return dtable.gather(0, call.results[3].clamp(min=0)) * (call.results[3] >= 0) if dtable is not None else None

    def bags(rows: Tensor, by: Tensor | None) -> Tensor:
        rest = (call["mode"], False, by, call["include_last_offset"], call["padding_idx"])
        return torch.ops.aten._embedding_bag(rows, *call.args[1:3], False, *rest)[0]

    total = None if dtable is None else bags(dtable, weights)
    if dweights is None:
        return total
    return bags(table, dweights) if total is None else total.add_(bags(table, dweights))


@rule(
    "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool3d",
    keeps=passive, results=(1,),
)  # fmt: skip
def largest_of_window(call: Call) -> Tangents:
    """Return the tangent where the maximum was."""
    where: Any = call.results[1]
    window = 3 if "3d" in str(call.func) else 2
    dx = call.dots[0].flatten(-window)
    return dx.gather(-1, where.flatten(-window)).view(where.shape)
