"""A part of the rows of a batch: what they tell of r, and what they leave open."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from safestep.heads.output import Output
from safestep.recording.forward import Forward

_FEWEST = 2
"""Rows that a sample must have."""
_TAIL = 8
"""The largest eighth of a sample tells how fast the spreads thin out."""


def rows_of(forward: Forward, one_in: int, first: int) -> Forward | None:
    """Return the forward of every ``one_in``-th row of the batch, from row ``first mod one_in`` on.

    Rows are the first dimension of the logits; every input tensor whose first dimension is as long is cut. Whether
    the rows can do without each other is not known here: compare a replay with the recorded logits.

    Returns:
        A forward to run again; None if the batch is too small, or no input has its rows.
    """
    size = batch_of(forward)
    return None if size // one_in < _FEWEST else cut_to(forward, slice(first % one_in, None, one_in))


def batch_of(forward: Forward) -> int:
    """Return how many rows its heads have in common; 0 if they have none."""
    sizes = {output.shape[0] if len(output.shape) > 1 else 0 for output in forward.heads}
    return sizes.pop() if len(sizes) == 1 else 0  # heads of different lengths are no heads of the same rows


def cut_to(forward: Forward, rows: slice) -> Forward | None:
    """Return the forward of some rows of the batch; None if no input has its rows."""
    size, found = batch_of(forward), []

    def cut(tensor: Tensor) -> Tensor:
        if tensor.ndim == 0 or tensor.shape[0] != size:
            return tensor
        found.append(tensor)
        return tensor[rows].contiguous()

    args, kwargs = _map((forward.args, forward.kwargs), cut)
    if not found:
        return None
    heads = [_cut(output, rows) for output in forward.heads]
    return replace(forward, args=args, kwargs=kwargs, outputs=heads, heads=heads)


def _cut(output: Output, rows: slice) -> Output:
    known, labelled, gradient = output.kept(), output.labelled, output.gradient
    value = None if known is None else known[rows]
    max_logits = output.max_logits[rows]
    return replace(
        output,
        shape=torch.Size((len(max_logits), *output.shape[1:])),
        max_logits=max_logits,
        active={axis: active[rows] for axis, active in output.active.items()},
        gradient=None if gradient is None else gradient[rows],
        labelled=None if labelled is None else labelled[rows],
        value=value,
        version=0 if value is None else value._version,
    )


def largest_of_all(spreads: Tensor, whole: int) -> float:
    r"""Return an estimate of the largest of many spreads from a sample of them.

    Equation:
        ``max + mean excess * ln(whole / m)`` for a sample of ``m``, where the mean excess is that of its largest eighth
        over the next smaller value: what the maximum gains per e-fold of the sample if the tail is exponential.

    Args:
        spreads: the sample, shape ``(m,)``, ``m >= 1``.
        whole: how many there are in all, at least ``m``.

    Returns:
        The estimate, at least the largest of the sample; nan if one is nan.

    Example:
        >>> largest_of_all(torch.tensor([1.0, 1.0, 1.0, 1.0]), 16)
        1.0

    Note:
        Good enough to see that a step is far inside, not to set a scale: over a quarter of a batch the maximum was
        more than 1.2 times too small on a tenth to a half of the steps of real runs.
    """
    size = spreads.numel()
    top = torch.topk(spreads, min(size, max(1, size // _TAIL) + 1)).values
    excess = (top[:-1] - top[-1]).mean() if size > 1 else torch.zeros_like(top[0])
    return float(top[0] + excess * math.log(max(1.0, whole / size)))


def _map(value: Any, cut: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to the tensors in plain containers, as deep as a replay casts them."""
    if isinstance(value, Tensor):
        return cut(value)
    if type(value) in (tuple, list):
        return type(value)(_map(item, cut) for item in value)
    if type(value) is dict:
        return {key: _map(item, cut) for key, item in value.items()}
    return value
