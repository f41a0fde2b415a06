"""A lower bound of the exact radius: one class dominates all others within a strip."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from safestep._torch.shapes import Float
from safestep.zeros.partition import ALL_EQUAL, Partition, samples

ROUNDING = 1e-13
_BISECTIONS = 60


def dominance_bound(
    logits: Float[Tensor, "*samples classes"], tangent: Float[Tensor, "*samples classes"]
) -> Float[Tensor, "*samples"]:
    r"""Return a lower bound of the exact radius: the top class outweighs all others within a strip around 0.

    Equation:
        ``sqrt(X^2 + (pi / spread(a))^2)``, ``X`` the largest number for which
        ``sum_(k != y) w_k exp((a_k - a_y) x) < w_y`` at both ``x = X`` and ``x = -X``, ``y`` the class with the
        largest weight; 0 if there is none. The sum is convex in x, so that a zero has ``|Re t| >= X``, and
        ``|Im t| >= pi / spread(a)``.

    Args:
        logits: ``z``, nats, shape ``(*samples, classes)``; see `nearest_zero`.
        tangent: ``a``, same shape.

    Returns:
        Float64, shape ``(*samples)``: at least ``pi / spread(a)``, and the exact radius itself of two classes; inf
        where there is no zero, nan where a number is not finite.

    Raises:
        ValueError: if the shapes differ, or there are less than two classes.
        TypeError: for numbers that are not floating-point.

    Example:
        >>> dominance_bound(torch.tensor([3.0, 0.0]), torch.tensor([1.0, 0.0]))  # sqrt(3^2 + pi^2)
        tensor(4.3439, dtype=torch.float64)
    """
    return each(logits, tangent, _dominance)


def each(logits: Tensor, tangent: Tensor, bound: Callable[[Partition], float]) -> Tensor:
    """Return a bound of every sample, on s in its own units; what is certain is certain after rounding, too."""
    values = []
    for partition in samples(logits, tangent):
        if isinstance(partition, str):
            values.append(math.inf if partition == ALL_EQUAL else math.nan)
        else:
            values.append(bound(partition) * (1 - ROUNDING) / partition.half)
    return torch.tensor(values, dtype=torch.float64).reshape(logits.shape[:-1]).to(logits.device)


def _dominance(partition: Partition) -> float:
    top = int(partition.logs.argmax())
    others = torch.arange(len(partition.logs)) != top
    gaps, slopes = partition.logs[others], partition.exponents[others] - partition.exponents[top]
    return math.hypot(min(_strip(gaps, slopes), _strip(gaps, -slopes)), math.pi / 2)


def _strip(gaps: Tensor, slopes: Tensor) -> float:
    """Return up to where the others, at gaps <= 0 below the top class, stay below it together."""

    def excess(x: float) -> float:
        return float(torch.logsumexp(gaps + slopes * x, 0)) + ROUNDING * (1 + x)

    rising = slopes > 0
    if excess(0.0) >= 0.0:
        return 0.0
    if not bool(rising.any()):
        return math.inf
    low, high = 0.0, float((-gaps[rising] / slopes[rising]).min())  # there one of them alone is as large
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0.0 else (low, middle)
    return low
