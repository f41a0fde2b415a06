"""The rule of fused attention: tangents by the probabilities, a block of rows at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from safestep.tape.rules import Call, Tangents, rule

_BLOCK = 1 << 20
"""Probabilities (elements) held at once; three such blocks live at a time, whatever the length of the sequence."""


def _drops(get: Callable[[str], Any]) -> str:
    return "drops probabilities inside its kernel, where the mask is not seen" if get("dropout_p") else ""


@rule(
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    refuses=_drops,
)  # fmt: skip
def attention(call: Call) -> Tangents:
    """Return ``dP v + P dv``, ``dP = P (dS - sum P dS)``, with ``S = scale q k^T + mask`` and ``P = softmax(S)``."""
    q, k, v = call.args[:3]
    mask, dmask = _mask_of(call)
    scale = call["scale"] if call["scale"] is not None else 1 / math.sqrt(q.shape[-1])
    size = (*q.shape[:3], k.shape[2])
    operands = _Operands(
        *(_by_head(t, q.shape[1]) for t in (q, k, v, *call.dots[:3])),
        *(None if t is None else t.expand(size) for t in (mask, dmask)),
    )
    return _blockwise(operands, scale, call["is_causal"], q.shape[:2]).view(*q.shape[:3], v.shape[-1])


def _mask_of(call: Call) -> tuple[Tensor | None, Tensor | None]:
    names = [a.name for a in call.func._schema.arguments]
    for name in ("attn_mask", "attn_bias"):
        if name in names:
            position = names.index(name)
            return call[name], call.dots[position] if position < len(call.dots) else call.named.get(name)
    return None, None


def _by_head(tensor: Tensor | None, heads: int) -> Tensor | None:
    """Return (batch, heads, length, size) as (batch * heads, length, size); queries may share a head of the others."""
    if tensor is None:
        return None
    if tensor.shape[1] != heads:
        tensor = tensor.repeat_interleave(heads // tensor.shape[1], 1)
    return tensor.flatten(0, 1)


class _Operands(NamedTuple):
    """Queries, keys, values and their tangents, (batch * heads, length, size); mask, (batch, heads, rows, keys)."""

    q: Tensor
    k: Tensor
    v: Tensor
    dq: Tensor | None
    dk: Tensor | None
    dv: Tensor | None
    mask: Tensor | None
    dmask: Tensor | None


def _blockwise(of: _Operands, scale: float, causal: bool, batch_and_heads: Sequence[int]) -> Tensor:
    """Return the tangent, block by block of heads and of query rows."""
    count, rows, _ = of.q.shape
    keys, heads = of.k.shape[1], batch_and_heads[1]
    total = torch.empty(count, rows, of.v.shape[-1], dtype=of.v.dtype, device=of.v.device)
    height = max(1, min(rows, _BLOCK // max(1, keys)))
    width = max(1, _BLOCK // max(1, keys * height))
    for first in range(0, count, width):
        each = range(first, min(first + width, count))
        for row in range(0, rows, height):
            seen = min(keys, row + height) if causal else keys
            last = min(rows, row + height)
            block = _Operands(
                *(None if t is None else t[each.start : each.stop, row:last] for t in (of.q,)),
                *(None if t is None else t[each.start : each.stop, :seen] for t in (of.k, of.v)),
                *(None if t is None else t[each.start : each.stop, row:last] for t in (of.dq,)),
                *(None if t is None else t[each.start : each.stop, :seen] for t in (of.dk, of.dv)),
                *(_rows_of_mask(t, each, heads, row, last, seen) for t in (of.mask, of.dmask)),
            )
            total[each.start : each.stop, row:last] = _block(block, scale, row if causal else None)
    return total


def _rows_of_mask(mask: Tensor | None, each: range, heads: int, row: int, last: int, seen: int) -> Tensor | None:
    if mask is None:
        return None
    return torch.stack([mask[i // heads, i % heads, row:last, :seen] for i in each])


def _block(of: _Operands, scale: float, causal_from: int | None) -> Tensor:
    """Return the tangent of some query rows, the first of which is ``causal_from`` if they see no later keys."""
    q, k, v, dq, dk, dv, mask, dmask = of
    scores = _wide(torch.bmm(q, k.mT)).mul_(scale)
    if mask is not None:
        scores = scores.masked_fill_(~mask, -math.inf) if mask.dtype == torch.bool else scores.add_(mask)
    if causal_from is not None:
        rows, keys = scores.shape[1:]
        later = torch.ones(rows, keys, dtype=torch.bool, device=q.device).triu_(causal_from + 1)
        scores.masked_fill_(later, -math.inf)
    weights = scores.softmax(-1)
    if mask is not None:
        weights = weights.nan_to_num_(nan=0.0)  # a row that sees no key at all
    narrow = weights.to(v.dtype)
    slopes = _slopes(q, k, dq, dk, scale, dmask)
    total = None
    if slopes is not None:
        moved = torch.ops.aten._softmax_backward_data(slopes.to(weights.dtype), weights, -1, weights.dtype)
        total = torch.bmm(moved.to(v.dtype), v)
    if dv is None:
        return total
    return torch.bmm(narrow, dv) if total is None else total.baddbmm_(narrow, dv)


def _slopes(
    q: Tensor, k: Tensor, dq: Tensor | None, dk: Tensor | None, scale: float, dmask: Tensor | None
) -> Tensor | None:
    """Return ``scale (dq k^T + q dk^T) + dmask``."""
    slopes = None if dq is None else torch.bmm(dq, k.mT)
    if dk is not None:
        slopes = torch.bmm(q, dk.mT) if slopes is None else slopes.baddbmm_(q, dk.mT)
    if slopes is not None:
        slopes = _wide(slopes).mul_(scale)
    if dmask is not None:
        slopes = dmask if slopes is None else slopes.add_(dmask)
    return slopes


def _wide(scores: Tensor) -> Tensor:
    """Return scores in float32 at least, where a softmax loses nothing."""
    return scores.float() if scores.dtype in {torch.float16, torch.bfloat16} else scores
