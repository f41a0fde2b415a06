r"""Rules of normalisations and softmax.

Each of ``x -> (x - mean) / sigma`` and softmax has a symmetric Jacobian in its input, so that the kernel backward uses
for ``J^T g`` computes ``J dx`` as well. With weight and bias, ``y = w xhat + b``:
``dy = w (J dx) + dw xhat + db``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from safestep.tape.rules import Call, Get, Tangents, only, rule

aten = torch.ops.aten

_MASK = [True, False, False]


@rule("native_layer_norm", keeps=only(0, 2), results=(1, 2))
def layer_norm(call: Call) -> Tangents:
    """Return ``w (J dx) + dw xhat + db`` over the last dimensions."""
    x, shape, weight = call.args[:3]
    dx, _, dw, db = call.dots[:4]
    mean, rstd = call.results[1], call.results[2]
    inner, outer = None, db
    if dx is not None:
        # a weight of one where autocast left the statistics in float32, which the kernel infers from a weight
        ones = None if weight is None or mean.dtype == x.dtype else torch.ones_like(weight)
        inner = aten.native_layer_norm_backward(dx, x, shape, mean, rstd, ones, None, _MASK)[0]
        inner = inner if weight is None else inner.mul_(weight)
    if dw is not None:
        outer = aten.native_layer_norm(x, shape, dw, db, call["eps"])[0]
    return _sum(inner, outer)


def _sum(inner: Tensor | None, outer: Tensor | None) -> Tangents:
    """Return the sum of the two parts, written over the first, which is ours and has the shape of the result."""
    return outer if inner is None else inner if outer is None else inner.add_(outer)


def _running(get: Get) -> tuple[int, ...]:
    """Return the places of the running statistics, which training writes and does not read."""
    return (3, 4) if get("training") else ()


@rule(
    "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm", "miopen_batch_norm",
    keeps=only(0, 1, 3, 4), results=(1, 2), unread=_running,
)  # fmt: skip
def batch_norm(call: Call) -> Tangents:
    """Return ``w (J dx) + dw xhat + db`` for each channel, with the batch's own statistics or the running ones."""
    return _batch_norm(call, call["training"])


@rule("_batch_norm_with_update", keeps=only(0, 1), results=(1, 2), unread=lambda get: (3, 4))
def batch_norm_with_update(call: Call) -> Tangents:
    """Return the same with the batch's own statistics."""
    return _batch_norm(call, training=True)


def _batch_norm(call: Call, training: bool) -> Tangents:
    (x, weight, _, *running), (dx, dw, db), eps = call.args[:5], call.dots[:3], call.args[-1]
    mean, rstd = (call.results[1], call.results[2]) if training else (running[0], (running[1] + eps).rsqrt())
    channels = (1, -1, *(1,) * (len(call.shape) - 2))
    inner = outer = None
    if dx is not None:  # the weight is one number for all that a channel's mean is taken over, so it commutes with J
        inner = aten.native_batch_norm_backward(dx, x, weight, *running, mean, rstd, training, eps, _MASK)[0]
    if dw is not None:
        slope = dw * rstd
        offset = -slope * mean if db is None else db - slope * mean
        outer = torch.addcmul(offset.view(channels).to(x.dtype), x, slope.view(channels).to(x.dtype))
    elif db is not None:
        outer = db.view(channels).to(call.dtype)
    return _sum(inner, outer)


@rule("_softmax", "_safe_softmax", keeps=only(), results=(0,))
def softmax(call: Call) -> Tangents:
    """Return ``P (dx - sum P dx)``."""
    dx = call.dots[0].to(call.dtype)
    return aten._softmax_backward_data(dx, call.results[0], call["dim"], call.dtype)


@rule("_log_softmax", keeps=only(), results=(0,))
def log_softmax(call: Call) -> Tangents:
    """Return ``dx - sum P dx``."""
    dx = call.dots[0].to(call.dtype)
    return dx - (call.results[0].exp() * dx).sum(call["dim"], keepdim=True)


@rule("_weight_norm_interface", keeps=only(0, 1))
def weight_norm(call: Call) -> Tangents:
    """Return ``d(g v / n) = (g dv + dg v) / n - g v dn / n^2`` with ``n = ||v||``, ``dn = <v, dv> / n``."""
    (v, g), (dv, dg) = call.args[:2], call.dots[:2]
    dims = [d for d in range(v.ndim) if d != call["dim"] % v.ndim]
    n = torch.linalg.vector_norm(v, dim=dims, keepdim=True)
    total = None if dg is None else v * (dg / n)
    if dv is not None:
        turned = (dv - v * ((v * dv).sum(dims, keepdim=True) / n.square())) * (g / n)
        total = turned if total is None else total.add_(turned)
    return total
