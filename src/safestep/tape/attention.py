"""The rule of fused attention: tangents by the probabilities, a block of rows at a time."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from safestep.tape.rules import Call, Get, Tangents, rule
from safestep.tape.signature import Signature

_BLOCK = 1 << 20
"""Probabilities (elements) held at once; three such blocks live at a time, whatever the length of the sequence."""


def _drops(get: Get) -> str:
    return "drops probabilities inside its kernel, where the mask is not seen" if get("dropout_p") else ""


class _Operands(NamedTuple):
    """Queries, keys, values and their tangents, (batch, heads, length, size); masks, (batch, heads, rows, keys)."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    dq: Tensor | None
    dk: Tensor | None
    dv: Tensor | None
    dmask: Tensor | None


@rule(
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    refuses=_drops,
)  # fmt: skip
def attention(call: Call) -> Tangents:
    """Return ``dP v + P dv``, ``dP = P (dS - sum P dS)``, with ``S = scale q k^T + mask`` and ``P = softmax(S)``."""
    places = Signature.of(call.func).places
    mask = places.get("attn_mask", places.get("attn_bias"))
    batch, heads, rows, size = call.args[0].shape
    scale = call["scale"] if call["scale"] is not None else 1 / math.sqrt(size)

    def by_head(tensor: Tensor | None) -> Tensor | None:
        if tensor is not None and tensor.shape[1] != heads:  # several heads of queries share one of the others
            tensor = tensor.repeat_interleave(heads // tensor.shape[1], 1)
        return tensor if tensor is None else tensor.contiguous()

    def masks(tensors: list[Tensor | None]) -> Tensor | None:
        tensor = None if mask is None else tensors[mask]
        return None if tensor is None else tensor.expand(batch, heads, rows, call.args[1].shape[2])

    operands = (part for of in (call.args, call.dots) for part in (*map(by_head, of[:3]), masks(of)))
    return _blockwise(_Operands._make(operands), scale, 0 if call["is_causal"] else None)


def _blockwise(of: _Operands, scale: float, first: int | None) -> Tensor:
    """Return the tangent, halved along batch, heads and query rows until a block is small enough.

    Args:
        of: the operands.
        scale: of the scores.
        first: the number of the first query row where queries see no later keys, else None.
    """
    batch, heads, rows, _ = of.q.shape
    if batch * heads * rows * of.k.shape[2] <= _BLOCK or batch * heads * rows == 1:
        return _block(of, scale, first)
    axis = 0 if batch > 1 else 1 if heads > 1 else 2
    length = of.q.shape[axis]
    half, later = length // 2, first if first is None or axis < 2 else first + length // 2
    upper, lower = _cut(of, axis, 0, half), _cut(of, axis, half, length - half)
    return torch.cat([_blockwise(upper, scale, first), _blockwise(lower, scale, later)], axis)


_DIMENSIONS = ((0,) * 8, (1,) * 8, (2, -1, -1, 2, 2, -1, -1, 2), (-1, 2, 2, 3, -1, 2, 2, 3))
"""The dimension of each operand that runs over batch, heads, query rows and keys; -1 for none."""


def _cut(of: _Operands, axis: int, start: int, length: int) -> _Operands:
    """Return a part of the operands along batch, heads, query rows or keys (axis 0 to 3)."""
    return _Operands._make(
        operand if operand is None or dim < 0 else operand.narrow(dim, start, length)
        for operand, dim in zip(of, _DIMENSIONS[axis], strict=True)
    )


def _block(of: _Operands, scale: float, first: int | None) -> Tensor:
    """Return the tangent of a block of scores that fits into memory. See `_blockwise`."""
    batch, heads, rows, _ = of.q.shape
    if first is not None:
        of = _cut(of, 3, 0, min(of.k.shape[2], first + rows))
    flat: list[Any] = [operand if operand is None else operand.flatten(0, 1) for operand in of]
    q, k, v, mask, dq, dk, dv, dmask = flat
    scores = torch.bmm(q, k.mT)
    moved = torch.zeros_like(scores)
    for one, other in ((dq, k), (q, dk)):
        if one is not None and other is not None:
            moved.baddbmm_(one, other.mT, alpha=scale)
    wide = torch.promote_types(scores.dtype, torch.float32)  # a softmax loses nothing in float32
    scores, moved = scores.to(wide).mul_(scale), moved.to(wide)
    if mask is not None:
        scores = scores.masked_fill_(~mask, -math.inf) if mask.dtype == torch.bool else scores.add_(mask)
    if dmask is not None:
        moved.add_(dmask)
    if first is not None:
        later = torch.ones(scores.shape[1:], dtype=torch.bool, device=q.device).triu_(first + 1)
        scores.masked_fill_(later, -math.inf)
    weights = scores.softmax(-1)
    if mask is not None:
        weights = weights.nan_to_num_(nan=0.0)  # a row that sees no key at all
    moved = torch.ops.aten._softmax_backward_data(moved, weights, -1, wide)
    total = torch.bmm(moved.to(v.dtype), v)
    if dv is not None:
        total.baddbmm_(weights.to(v.dtype), dv)
    return total.view(batch, heads, rows, -1)
