"""The rule of fused attention: tangents by the probabilities, a block of rows at a time."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from safestep.tape.rules import Call, Get, Tangents, rule
from safestep.tape.signature import Signature

_BLOCK = 1 << 20
"""Probabilities (elements) held at once; three such blocks live at a time, whatever the length of the sequence."""


def _drops(get: Get) -> str:
    return "drops probabilities inside its kernel, where the mask is not seen" if get("dropout_p") else ""


class _Operands(NamedTuple):
    """Queries, keys, values, mask and their tangents: (batch, heads, length, size); masks (batch, heads, rows, keys)."""

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
    q, k, v, mask, dq, dk, dv, dmask = (operand if operand is None else operand.flatten(0, 1) for operand in of)
    scores = _at_least_float32(torch.bmm(q, k.mT)).mul_(scale)
    if mask is not None:
        scores = scores.masked_fill_(~mask, -math.inf) if mask.dtype == torch.bool else scores.add_(mask)
    if first is not None:
        later = torch.ones(scores.shape[1:], dtype=torch.bool, device=q.device).triu_(first + 1)
        scores.masked_fill_(later, -math.inf)
    weights = scores.softmax(-1)
    if mask is not None:
        weights = weights.nan_to_num_(nan=0.0)  # a row that sees no key at all
    total = torch.zeros(*q.shape[:2], v.shape[-1], dtype=v.dtype, device=v.device)
    if dv is not None:
        total.baddbmm_(weights.to(v.dtype), dv)
    moves = _score_tangent(q, k, dq, dk, scale, dmask)
    if moves is not None:
        moved = torch.ops.aten._softmax_backward_data(moves.to(weights.dtype), weights, -1, weights.dtype)
        total.baddbmm_(moved.to(v.dtype), v)
    return total.view(batch, heads, rows, -1)


def _score_tangent(
    q: Tensor, k: Tensor, dq: Tensor | None, dk: Tensor | None, scale: float, dmask: Tensor | None
) -> Tensor | None:
    """Return ``scale (dq k^T + q dk^T) + dmask``."""
    total = None if dq is None else torch.bmm(dq, k.mT)
    if dk is not None:
        total = torch.bmm(q, dk.mT) if total is None else total.baddbmm_(q, dk.mT)
    if total is not None:
        total = _at_least_float32(total).mul_(scale)
    if dmask is not None:
        total = dmask if total is None else total.add_(dmask)
    return total


def _at_least_float32(scores: Tensor) -> Tensor:
    return scores.float() if scores.dtype in {torch.float16, torch.bfloat16} else scores  # where a softmax loses nothing
