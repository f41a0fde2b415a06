"""Lower bounds of the exact radius, which never go beyond it: by a class that dominates, by a harmonic function."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from safestep._torch.shapes import Float
from safestep.zeros.expansion import REACH, expand
from safestep.zeros.partition import ALL_EQUAL, Partition, samples

_BISECTIONS = 60
_ROUNDING = 1e-13
_ARC, _FINEST, _CLOSENESS = 1.2, 0.02, 1e-3
"""Lengths of the arcs that a circle is looked at by, the first and the last, and how near the bound comes to its best."""


def dominance_bound(
    logits: Float[Tensor, "*samples classes"], tangent: Float[Tensor, "*samples classes"]
) -> Float[Tensor, "*samples"]:
    r"""Return a lower bound of the exact radius: the top class outweighs all others within a strip around 0.

    Equation:
        ``sqrt(X^2 + (pi / spread(a))^2)``, ``X`` the largest number for which
        ``sum_(k != y) w_k exp((a_k - a_y) x) < w_y`` at both ``x = X`` and ``x = -X``, ``y`` the class with the largest
        weight; 0 if there is none. The sum is convex in x, so a zero has ``|Re t| >= X``, and ``|Im t| >= pi / spread``.

    Args:
        logits: ``z``, nats, shape ``(*samples, classes)``; see `nearest_zero`.
        tangent: ``a``, same shape.

    Returns:
        Float64, shape ``(*samples)``: at least ``pi / spread(a)``, and the exact radius itself of two classes; inf where
        there is no zero, nan where a number is not finite.

    Raises:
        ValueError: if the shapes differ, or there are less than two classes.
        TypeError: for numbers that are not floating-point.

    Example:
        >>> dominance_bound(torch.tensor([3.0, 0.0]), torch.tensor([1.0, 0.0]))  # sqrt(3^2 + pi^2)
        tensor(4.3438, dtype=torch.float64)
    """
    return _each(logits, tangent, _dominance)


def harmonic_bound(
    logits: Float[Tensor, "*samples classes"], tangent: Float[Tensor, "*samples classes"]
) -> Float[Tensor, "*samples"]:
    r"""Return a lower bound of the exact radius: a harmonic function that is positive on a circle is so inside.

    Equation:
        the largest R, to a part in 10^3, for which ``Re(exp(-c t) F(t)) > 0`` certainly holds on all of ``|t| = R``, with
        ``c`` the mean of a under softmax(z), or the middle of its range, whichever goes farther.

    Args:
        logits: ``z``, nats, shape ``(*samples, classes)``; see `nearest_zero`.
        tangent: ``a``, same shape.

    Returns:
        Float64, shape ``(*samples)``: at least ``pi / spread(a)``; inf where there is no zero, nan where a number is not
        finite.

    Raises:
        ValueError: if the shapes differ, or there are less than two classes.
        TypeError: for numbers that are not floating-point.

    Example:
        >>> round(float(harmonic_bound(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0]))), 2)
        3.31
    """
    return _each(logits, tangent, _harmonic)


def _each(logits: Tensor, tangent: Tensor, bound: Callable[[Partition], float]) -> Tensor:
    values = []
    for partition in samples(logits, tangent):
        if isinstance(partition, str):
            values.append(math.inf if partition == ALL_EQUAL else math.nan)
        else:
            values.append(bound(partition) * (1 - _ROUNDING) / partition.half)
    return torch.tensor(values, dtype=torch.float64).reshape(logits.shape[:-1]).to(logits.device)


def _dominance(partition: Partition) -> float:
    top = int(partition.logs.argmax())
    others = torch.arange(len(partition.logs)) != top
    gaps, slopes = partition.logs[others], partition.exponents[others] - partition.exponents[top]
    return math.hypot(min(_strip(gaps, slopes), _strip(gaps, -slopes)), math.pi / 2)


def _strip(gaps: Tensor, slopes: Tensor) -> float:
    """Return up to where the others, at gaps <= 0 below the top class, stay below it together."""

    def excess(x: float) -> float:
        return float(torch.logsumexp(gaps + slopes * x, 0)) + _ROUNDING * (1 + x)

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


def _harmonic(partition: Partition) -> float:
    weights = partition.logs.exp()
    mean = float(weights @ partition.exponents / weights.sum())
    best = math.pi / 2
    for tilt in (mean, 0.0):
        low, high = best, 1.5 * best
        if not _positive(partition, low * (1 + _CLOSENESS), tilt):
            continue
        while _positive(partition, high, tilt):
            low, high = high, 1.5 * high
        while high - low > _CLOSENESS * low:
            middle = (low + high) / 2
            low, high = (middle, high) if _positive(partition, middle, tilt) else (low, middle)
        best = low
    return best


def _positive(partition: Partition, radius: float, tilt: float) -> bool:
    """Return whether ``Re(exp(-c s) F(s)) > 0`` is certain on a circle, the lower half of which mirrors the upper."""
    width = _ARC / radius
    angles = torch.linspace(0.0, math.pi, max(8, math.ceil(math.pi / width)) + 1, dtype=torch.float64)
    starts, ends = angles[:-1], angles[1:]
    while len(starts):
        middles = (starts + ends) / 2
        centres = torch.polar(torch.full_like(middles, radius), middles)
        local = expand(partition, centres, tilt)
        turn = torch.polar(torch.ones_like(middles), -tilt * centres.imag)
        reach = radius * float((ends - starts)[0]) / 2
        at_least = (local.coefficients[:, 0] * turn).real
        if reach < _FINEST / 2 or bool((at_least <= 0).any()):
            return False
        sizes = local.sizes(torch.full_like(middles, reach * (1 + 1e-9)))
        sure = (at_least > sizes[:, 1:].sum(-1) + local.error(torch.full_like(middles, reach))) & (reach <= REACH)
        starts, middles, ends = starts[~sure], middles[~sure], ends[~sure]
        starts, ends = torch.cat([starts, middles]), torch.cat([middles, ends])
    return True
