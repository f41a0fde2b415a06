"""The few functions that the formulas need of a number and of a tensor alike, so that each formula stands once."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TypeVar

import torch
from torch import Tensor

N = TypeVar("N", float, Tensor)
"""The step t, or what is made of it: a number, or a float64 tensor of any shape."""


def exp(x: N) -> N:
    """Return e^x."""
    return x.exp() if isinstance(x, Tensor) else math.exp(x)


def sin(x: N) -> N:
    """Return sin x, x in radians."""
    return x.sin() if isinstance(x, Tensor) else math.sin(x)


def power(base: N, exponent: float) -> N:
    """Return ``base ** exponent`` for a base of at least 0."""
    return base.pow(exponent) if isinstance(base, Tensor) else math.pow(base, exponent)


def power_of(base: float, exponent: N) -> N:
    """Return ``base ** exponent`` for a base above 0."""
    return torch.pow(base, exponent) if isinstance(exponent, Tensor) else math.pow(base, exponent)


def share(x: N, whole: int) -> N:
    """Return ``min(x / whole, 1)``, exactly 1 from ``x = whole`` on: a GPU multiplies by 1 / whole, which misses it."""
    if isinstance(x, Tensor):
        return torch.where(x < whole, x / whole, 1.0)
    return x / whole if x < whole else 1.0


def left(t: N, steps: int) -> N:
    """Return ``max(steps - t, 0)``."""
    return (steps - t).clamp(min=0.0) if isinstance(t, Tensor) else max(steps - t, 0.0)


def piece(t: N, at: tuple[int, ...], values: tuple[float, ...]) -> N:
    """Return ``values[i]`` for the number i of boundaries in ``at`` that are not beyond t."""
    if isinstance(t, Tensor):
        table = torch.tensor(values, dtype=t.dtype, device=t.device)
        return table[torch.bucketize(t, torch.tensor(at, dtype=t.dtype, device=t.device), right=True)]
    return values[bisect_right(at, t)]
