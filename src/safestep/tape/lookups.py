"""Rules of operations that pick rows of a table."""

from __future__ import annotations

import torch
from torch import Tensor

from safestep.tape.rules import Call, Get, Tangents, only, rule

_MAX = 2


@rule("embedding", keeps=only(1))
def embedding(call: Call) -> Tangents:
    """Return the rows of the table's tangent."""
    return torch.embedding(call.dots[0], call.args[1])


def _weighted_and_largest(get: Get) -> str:
    return "mode 'max' with weights" if get("mode") == _MAX and get("per_sample_weights") is not None else ""


@rule("_embedding_bag", "_embedding_bag_forward_only", results=(3,), refuses=_weighted_and_largest)
def embedding_bag(call: Call) -> Tangents:
    """Return the bags of the table's tangent, plus those of the table under the weights' tangent."""
    table, weights = call.args[0], call["per_sample_weights"]
    dtable, dweights = call.dots[0], call.dots[6]
    if call["mode"] == _MAX:
        return dtable.gather(0, call.results[3].clamp(min=0)) * (call.results[3] >= 0)

    def bags(rows: Tensor, by: Tensor | None) -> Tensor:
        options = (call["mode"], False, by, call["include_last_offset"], call["padding_idx"])
        bagged: Tensor = torch.ops.aten._embedding_bag(rows, *call.args[1:3], False, *options)[0]
        return bagged

    total = None if dtable is None else bags(dtable, weights)
    if dweights is None:
        return total
    return bags(table, dweights) if total is None else total.add_(bags(table, dweights))
