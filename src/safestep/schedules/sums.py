"""Infinite sums in closed form: ``math.inf`` where they diverge, an ArithmeticError where no float can tell them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_HUGE = 1e300
"""As good as infinite, and a float still after it was multiplied by 0."""
_MANY = 40.0
"""From this exponent on the terms are soon too small to count."""
_BERNOULLI = ((1, 1 / 12), (3, -1 / 720), (5, 1 / 30240), (7, -1 / 1209600))
"""Orders of derivatives, with ``B_2j / (2j)!``."""


def power_law(beta: float, exponent: float, first: int) -> float:
    r"""Return the sum of ``(1 + beta t)^(-s)`` over t from ``first`` on.

    Equation:
        ``beta^(-s) zeta(s, q)`` with Hurwitz' zeta and ``q = 1/beta + first``; its first term times the sum of
        ``(1 + k/q)^(-s)`` over k from 0 on, which stays in the range of floats.

    Args:
        beta: above 0.
        exponent: ``s``, above 0.
        first: at least 0.

    Example:
        >>> power_law(1.0, 1.0, 0), round(power_law(1.0, 2.0, 0) - math.pi**2 / 6, 15)
        (inf, 0.0)
    """
    if exponent <= 1.0:
        return math.inf
    s = min(exponent, _HUGE)
    leading = math.exp(-s * math.log1p(beta * first))  # log1p: a large power makes much of a rounded base
    return leading * finite(_in_first_terms(s, (1.0 + beta * first) / beta))


def _in_first_terms(s: float, q: float) -> float:
    """Return the sum of ``(1 + k/q)^(-s)`` over k from 0 on."""
    if s < 0.1 * q:  # the terms fall slowly: Euler and Maclaurin
        total, factor = q / (s - 1.0) + 0.5, 1.0
        for order in range(1, 8):
            factor *= (s + order - 1.0) / q
            total += dict(_BERNOULLI).get(order, 0.0) * factor
        return total
    if s >= _MANY:  # they fall fast: those that count, e^-40 of the first
        k = torch.arange(2 + int(q * math.expm1(_MANY / s)), dtype=torch.float64, device="cpu")
        return float(torch.exp(-s * torch.log1p(k / q)).sum())
    zeta: float = torch.special.zeta(*torch.tensor([s, q + 1.0], dtype=torch.float64, device="cpu")).item()
    return 1.0 + math.pow(q, s) * zeta


def geometric(rate: float, first: int) -> float:
    r"""Return the sum of ``e^(-rate t)`` over t from ``first`` on: ``e^(-rate first) / (1 - e^(-rate))``.

    Example:
        >>> round(geometric(math.log(2.0), 0), 15)
        2.0
    """
    rate = min(rate, _HUGE)
    return finite(math.exp(-rate * first) / -math.expm1(-rate))  # expm1: 1 - e^(-rate) loses digits at small rates


def first_terms(factor: Callable[[Tensor], Tensor], power: float, first: int, stop: int) -> float:
    """Return the sum of ``factor(t) ** power`` over t from ``first`` to ``stop - 1``, term by term."""
    steps = torch.arange(first, max(first, stop), dtype=torch.float64, device="cpu")
    return finite(factor(steps).pow(power).sum().item())


def finite(total: float) -> float:
    """Return a sum that does not diverge, unless it is beyond the largest float."""
    if not math.isfinite(total):
        raise OverflowError
    return total
