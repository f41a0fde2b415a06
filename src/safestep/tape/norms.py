r"""Rules of normalisations and softmax.

Each of ``x -> (x - mean) / sigma`` and softmax has a symmetric Jacobian in its input, so that the kernel backward uses
for ``J^T g`` computes ``J dx`` as well. With weight and bias, ``y = w xhat + b``:
``dy = w (J dx) + dw xhat + db``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from safestep.tape.rules import Call, Tangents, only, rule

aten = torch.ops.aten

_MASK = [True, False, False]


@rule("native_layer_norm", keeps=only(0, 2), results=(1, 2))
def layer_norm(call: Call) -> Tangents:
    """Return ``w (J dx) + dw xhat + db`` over the last dimensions."""
    x, shape, weight = call.args[:3]
    dx, _, dw, db = call.dots[:4]
    mean, rstd = call.results[1:3]
    inner = None
    if dx is not None:
        inner = aten.native_layer_norm_backward(dx, x, shape, mean, rstd, None, None, _MASK)[0]
    outer = None
    if dw is not None:
        outer = aten.native_layer_norm(x, shape, dw, db, call["eps"])[0]
    return _together(inner, weight, outer if outer is not None else db)


@rule("native_group_norm", keeps=only(0, 1), results=(1, 2))
def group_norm(call: Call) -> Tangents:
    """Return ``w (J dx) + dw xhat + db``, each group of channels by itself."""
    x, weight, _, *sizes, groups, eps = call.args
    dx, dw, db = call.dots[:3]
    mean, rstd = call.results[1:3]
    inner = outer = None
    if dx is not None:
        inner = aten.native_group_norm_backward(dx.contiguous(), x, mean, rstd, None, *sizes, groups, _MASK)[0]
    if dw is not None:
        outer = aten.native_group_norm(x, dw, db, *sizes, groups, eps)[0]
    channels = (1, -1, *(1,) * (len(call.shape) - 2))
    weight = None if weight is None else weight.view(channels)
    return _together(inner, weight, outer if outer is not None else None if db is None else db.view(channels))


def _together(inner: Tensor | None, weight: Tensor | None, outer: Tensor | None) -> Tangents:
    if inner is None:
        return outer
    if outer is None:
        return inner if weight is None else inner.mul_(weight)
    if weight is None:
        return inner.add_(outer)
    return outer.addcmul_(inner, weight) if outer.size() == inner.size() else inner.mul_(weight).add_(outer)


@rule("_fused_rms_norm", keeps=only(0, 2), results=(1,))
def rms_norm(call: Call) -> Tangents:
    """Return ``w (J dx) + dw xhat`` for ``xhat = x / rms(x)``."""
    x, shape, weight = call.args[:3]
    dx, _, dw = call.dots[:3]
    rstd: Any = call.results[1]
    inner = None
    if dx is not None:
        dims = tuple(range(-len(shape), 0))
        inner = rstd * (dx - x * rstd.square() * (dx * x).mean(dims, keepdim=True))
    return _together(inner, weight, None if dw is None else x * rstd * dw)


def _running(get: Callable[[str], Any]) -> tuple[int, ...]:
    """The positions of the running statistics, which training writes and does not read."""
    return (3, 4) if get("training") else ()


def _always(get: Callable[[str], Any]) -> tuple[int, ...]:
    return (3, 4)


@rule(
    "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm", "miopen_batch_norm",
    keeps=only(0, 1, 3, 4), results=(1, 2), unread=_running, spoiled=_running,
)  # fmt: skip
def batch_norm(call: Call) -> Tangents:
    """Return ``w (J dx) + dw xhat + db`` for each channel, with the batch's own statistics or the running ones."""
    return _batch_norm(call, call["training"])


@rule("_batch_norm_with_update", keeps=only(0, 1), results=(1, 2), unread=_always, spoiled=_always)
def batch_norm_with_update(call: Call) -> Tangents:
    """Return the same with the batch's own statistics."""
    return _batch_norm(call, training=True)


def _batch_norm(call: Call, training: bool) -> Tangents:
    """Return ``a dx + b x + c`` with three numbers for each channel: all that J needs are two sums over the batch."""
    x, weight, dx, dw, db = *call.args[:2], *call.dots[:3]
    mean, rstd = call.results[1:3] if training else (call.args[3], (call.args[4] + call.args[-1]).rsqrt())
    slope: Tensor | None = None if dw is None else dw * rstd
    offset = db
    if dx is not None:
        by = rstd if weight is None else rstd * weight
        if training:
            eps, sums = call.args[-1], [False, True, True]
            _, along, total = aten.native_batch_norm_backward(
                dx, x, weight, None, None, mean, rstd, True, eps, sums
            )  # sums over the batch of dx xhat and of dx
            share = mean.numel() / x.numel()
            slope = _sum(slope, along * rstd * by * -share)
            offset = _sum(offset, total * by * -share)
    if slope is not None:
        offset = _sum(offset, -slope * mean)
    channels = (1, -1, *(1,) * (len(call.shape) - 2))
    moved = None if offset is None else offset.view(channels).to(call.dtype)
    if slope is not None:
        moved = torch.addcmul(moved, x, slope.view(channels).to(call.dtype))
    if dx is None:
        return moved
    by = by.view(channels).to(call.dtype)
    if moved is None:
        return dx * by
    return moved.addcmul_(dx, by) if slope is not None else torch.addcmul(moved, dx, by)


def _sum(one: Tensor | None, other: Tensor) -> Tensor:
    return other if one is None else one + other


@rule("_softmax", "_safe_softmax", keeps=only(), results=(0,))
def softmax(call: Call) -> Tangents:
    """Return ``P (dx - sum P dx)``."""
    dx = call.dots[0].to(call.dtype)
    return aten._softmax_backward_data(dx, call.result, call["dim"], call.dtype)


@rule("_log_softmax", keeps=only(), results=(0,))
def log_softmax(call: Call) -> Tangents:
    """Return ``dx - sum P dx``."""
    dx = call.dots[0].to(call.dtype)
    return dx - (call.result.exp() * dx).sum(call["dim"], keepdim=True)
