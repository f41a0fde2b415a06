"""The rule of an LSTM layer that oneDNN runs as one operation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from safestep.tape.generic import by_dual_numbers
from safestep.tape.rules import Call, Get, Tangents, rule

_LSTM = 2


def _not_lstm(get: Get) -> str:
    return "" if get("mode") == _LSTM else "is no LSTM layer"


@rule("mkldnn_rnn_layer", outputs=3, refuses=_not_lstm)
def lstm_layer(call: Call) -> Tangents:
    """Return the tangents of ``(h_1 .. h_T, h_T, c_T)`` of one layer in one direction, by torch's own LSTM instead."""

    def layer(arguments: list[Any]) -> Any:
        x, w, u, b_w, b_u, h, c = arguments
        x, (h, c) = x.flip(0) if call["reverse"] else x, (state.view(1, *x.shape[1:-1], -1) for state in (h, c))
        weights = [w, u, b_w, b_u] if call["has_biases"] else [w, u]
        y, h, c = torch.lstm(x, (h, c), weights, call["has_biases"], 1, 0.0, False, False, False)
        return y.flip(0) if call["reverse"] else y, h[0], c[0]

    with _without_onednn():
        return by_dual_numbers(layer, call.args[:7], call.dots[:7], str(call.func))


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    """Run torch's own kernels, which have a forward derivative."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before
