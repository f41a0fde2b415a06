"""Rules of linear operations: the tangent is the operation on the tangents."""

from __future__ import annotations

from typing import Any

import torch

from safestep.tape.rules import Call, Tangents, only, passive, rule
from safestep.tape.slots import Slot


@rule(
    "neg", "sum", "mean", "nansum", "cumsum", "trace", "_to_copy", "clone", "contiguous", "_reshape_copy",
    "cat", "stack", "repeat", "flip", "roll", "tril", "triu", "rot90", "channel_shuffle", "pixel_shuffle",
    "pixel_unshuffle", "unfold_backward", "im2col", "col2im", "reflection_pad1d", "reflection_pad2d",
    "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d", "index_select", "gather",
    "index.Tensor", "_unsafe_index.Tensor", "index_put", "_unsafe_index_put", "index_add", "index_copy",
    "scatter.src", "scatter_add", "masked_scatter", "take", "select_scatter", "slice_scatter", "diagonal_scatter",
    "as_strided_scatter", "select_backward", "slice_backward", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d",
    "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d", "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa", "where.self", "diag_embed", "lift", "_conj_physical",
    keeps=passive,
)  # fmt: skip
def on_the_tangents(call: Call) -> Tangents:
    """Return the operation on the tangents, zeros where a floating-point argument has none."""
    return call.run([_tangent(*each) for each in zip(call.slots, call.args, call.dots, strict=True)])


def _tangent(slot: Any, value: Any, dot: Any) -> Any:
    if isinstance(slot, list):
        return [_tangent(*each) for each in zip(slot, value, dot, strict=True)]
    if dot is not None or not isinstance(slot, Slot):
        return value if dot is None else dot
    return slot.zeros() if slot.layout[3].is_floating_point or slot.layout[3].is_complex else value


@rule("add.Tensor", "add.Scalar", "sub.Tensor", "sub.Scalar", "rsub.Tensor", "rsub.Scalar", keeps=only())
def added(call: Call) -> Tangents:
    """Return ``da + alpha db``, written into whichever of the two nobody needs any more."""
    alpha, name = call["alpha"], call.func._schema.name
    factors = {"aten::add": (1, alpha), "aten::sub": (1, -alpha), "aten::rsub": (-alpha, 1)}[name]
    terms = [(call.dots[i], factor, i) for i, factor in enumerate(factors) if call.dots[i] is not None]
    if len(terms) == 1:
        dot, factor, _ = terms[0]
        return dot if factor == 1 else dot * factor
    for (into, one, position), (other, factor, _) in (terms, terms[::-1]):
        if one == 1 and position in call.spent and into.size() == call.shape and into.dtype == call.dtype:
            return into.add_(other, alpha=factor)
    (into, _, _), (other, factor, _) = sorted(terms, key=lambda term: term[1] != 1)
    return torch.add(into, other, alpha=factor)


@rule("copy", "fill.Tensor", keeps=only())
def copied(call: Call) -> Tangents:
    """Return the tangent of the source, which may be a single number."""
    return None if call.dots[1] is None else call.dots[1].expand(call.shape)


@rule("fill.Scalar", "zero", "bernoulli.p", "bernoulli.float_p", keeps=only())
def overwritten(call: Call) -> Tangents:
    """Return zero: nothing of the argument is left."""
    return None


@rule("masked_fill.Scalar", "constant_pad_nd", "scatter.value", keeps=passive)
def with_a_constant(call: Call) -> Tangents:
    """Return the operation on the tangent, with 0 for the number that it writes, its last argument."""
    *others, last = call.args[1:]
    return call.func(call.dots[0], *others, 0 if isinstance(last, (int, float)) else last)
