"""Rules of recurrent layers and weight norm that run as one operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from safestep.tape.rules import Call, Tangents, only, rule

_LSTM = 2


def _not_lstm(get: Callable[[str], Any]) -> str:
    return "" if get("mode") == _LSTM else "is no LSTM layer"


@rule("mkldnn_rnn_layer", results=(0,), outputs=3, refuses=_not_lstm)
def lstm_layer(call: Call) -> Tangents:
    """Return the tangents of ``(h_1 .. h_T, h_T, c_T)`` of one layer in one direction.

    Gates ``a = W x + b + U h'`` in the order i, f, g, o; ``c = sigmoid(f) c' + sigmoid(i) tanh(g)``,
    ``h = sigmoid(o) tanh(c)``. The outputs ``h`` are known, so that the gates of all times are one product; only
    ``c`` and the tangents go step by step.
    """
    x, w, u, b_w, b_u, h0, c0 = call.args[:7]
    dx, dw, du, db_w, db_u, dh, dc = call.dots[:7]
    if not call["has_biases"]:  # the weights stand in for them
        b_w = b_u = db_w = db_u = None
    reverse, hidden = call["reverse"], call.result
    first = h0.view(1, *hidden.shape[1:])
    before = torch.cat([hidden[1:], first] if reverse else [first, hidden[:-1]])
    gates = F.linear(x, w, b_w).add_(F.linear(before, u, b_u))
    moves = torch.zeros_like(gates)
    for one, kernel in ((dx, w), (x, dw), (before, du)):
        if one is not None and kernel is not None:
            moves += F.linear(one, kernel)
    for db in (db_w, db_u):
        if db is not None:
            moves += db
    c = c0.view(hidden.shape[1:])
    dc = torch.zeros_like(c) if dc is None else dc.view_as(c)
    dh = torch.zeros_like(c) if dh is None else dh.view_as(c)
    tangents: list[Tensor] = []
    for t in range(len(hidden) - 1, -1, -1) if reverse else range(len(hidden)):
        i, f, g, o = _lstm_gates(gates[t])
        di, df, dg, do = torch.addmm(moves[t], dh, u.t()).chunk(4, -1)
        dc = f * (1 - f) * df * c + f * dc + i * (1 - i) * di * g + i * (1 - g * g) * dg
        c = f * c + i * g
        tip = c.tanh()
        dh = o * (1 - o) * do * tip + o * (1 - tip * tip) * dc
        tangents.append(dh)
    stacked = torch.stack(tangents[::-1] if reverse else tangents)
    return stacked, dh, dc


def _lstm_gates(gates: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    i, f, g, o = gates.chunk(4, -1)
    return i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()


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
