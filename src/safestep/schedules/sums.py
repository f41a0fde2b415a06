"""Infinite and finite sums of powers of factors, in the range of floats where the closed form as written leaves it."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from safestep.schedules.base import Schedule

_BLOCK = 1 << 20
_TERMS = 32
_BERNOULLI = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600)
"""B_2j / (2j)! for j = 1 to 4. After 32 terms the next one is below 1e-16 of the sum whatever s and q are."""


def power_law(beta: float, exponent: float, first: int) -> float:
    r"""Return the sum of ``(1 + beta t)^(-s)`` over t from ``first`` on.

    Equation:
        ``beta^(-s) zeta(s, 1/beta + first)`` with Hurwitz' zeta, worked out as ``(1 + beta first)^(-s) h(s, q)``.

    Args:
        beta: above 0.
        exponent: ``s``, above 1.
        first: at least 0.

    Example:
        >>> round(power_law(1.0, 2.0, 0) - math.pi**2 / 6, 15)
        0.0
    """
    exponent = min(exponent, sys.float_info.max)  # inf times 0 would be nan
    return math.exp(-exponent * math.log1p(beta * first)) * _scaled_zeta(exponent, 1.0 / beta + first)


def _scaled_zeta(s: float, q: float) -> float:
    """Return ``h(s, q) = q^s zeta(s, q)``, the sum of ``(1 + k/q)^(-s)``, by the formula of Euler and Maclaurin.

    Not ``q**s * torch.special.zeta(s, q)``: at s = 40 and q = 1e8 (beta = 1e-8) its q^(-s) is no float any more.
    """
    head = math.fsum(math.exp(-s * math.log1p(k / q)) for k in range(_TERMS))
    weight, end = math.exp(-s * math.log1p(_TERMS / q)), q + _TERMS
    if weight == 0.0:
        return head
    tail, rising = end / (s - 1.0) + 0.5, s / end
    for j, coefficient in enumerate(_BERNOULLI):
        tail += coefficient * rising
        rising *= (s + 2 * j + 1) / end * ((s + 2 * j + 2) / end)
    return head + weight * tail


def geometric(rate: float, first: int) -> float:
    r"""Return the sum of ``e^(-rate t)`` over t from ``first`` on.

    Equation:
        ``e^(-rate first) / (1 - e^(-rate))``.

    Args:
        rate: above 0.
        first: at least 0.

    Example:
        >>> round(geometric(math.log(2.0), 0), 15)
        2.0
    """
    rate = min(rate, sys.float_info.max)
    return math.exp(-rate * first) / -math.expm1(-rate)  # expm1: 1 - e^(-rate) loses its digits where the rate is small


def finite(schedule: Schedule, power: float, first: int, stop: int) -> float:
    """Return the sum of ``schedule(t) ** power`` over t from ``first`` to ``stop - 1``, in memory that stays."""
    blocks = (
        torch.arange(start, min(start + _BLOCK, stop), dtype=torch.float64, device="cpu")
        for start in range(first, stop, _BLOCK)
    )
    return math.fsum(float(schedule(block).pow(power).sum()) for block in blocks)
