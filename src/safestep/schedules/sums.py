"""Infinite sums in closed form: ``math.inf`` where they diverge, an ArithmeticError where no float can tell them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_LEAST = 1e-290
"""Below it a float loses digits."""


def power_law(beta: float, exponent: float, first: int) -> float:
    r"""Return the sum of ``(1 + beta t)^(-s)`` over t from ``first`` on: ``beta^(-s) zeta(s, 1/beta + first)``.

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
    arguments = torch.tensor([exponent, 1.0 / beta + first], dtype=torch.float64, device="cpu")
    zeta = torch.special.zeta(*arguments).item()  # Hurwitz' zeta, the sum of (k + q)^(-s)
    if zeta < _LEAST:
        raise OverflowError
    return finite(math.pow(beta, -exponent) * zeta)


def geometric(rate: float, first: int) -> float:
    r"""Return the sum of ``e^(-rate t)`` over t from ``first`` on: ``e^(-rate first) / (1 - e^(-rate))``.

    Example:
        >>> round(geometric(math.log(2.0), 0), 15)
        2.0
    """
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
