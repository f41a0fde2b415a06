"""A lower bound of the exact radius: a harmonic function without a zero on a circle."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from safestep._torch.shapes import Float
from safestep.zeros.dominance import each
from safestep.zeros.expansion import REACH, expand
from safestep.zeros.partition import Partition

_ARC, _FINEST, _CLOSENESS = 1.2, 0.02, 1e-3
"""Lengths of the first and last arcs that a circle is looked at by, and how near the bound comes to its best."""


def harmonic_bound(
    logits: Float[Tensor, "*samples classes"], tangent: Float[Tensor, "*samples classes"]
) -> Float[Tensor, "*samples"]:
    r"""Return a lower bound of the exact radius: a harmonic function that is positive on a circle is so inside.

    Equation:
        the largest R, to a part in 10^3, for which ``Re(exp(-c t) F(t)) > 0`` certainly holds on all of ``|t| = R``,
        with ``c`` the mean of a under softmax(z), or the middle of its range, whichever goes farther.

    Args:
        logits: ``z``, nats, shape ``(*samples, classes)``; see `nearest_zero`.
        tangent: ``a``, same shape.

    Returns:
        Float64, shape ``(*samples)``: at least ``pi / spread(a)``; inf where there is no zero, nan where a number is
        not finite.

    Raises:
        ValueError: if the shapes differ, or there are less than two classes.
        TypeError: for numbers that are not floating-point.

    Example:
        >>> round(float(harmonic_bound(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0]))), 2)
        3.67

    Note:
        Takes longer than `nearest_zero`, which goes farther: it is here to compare with.
    """
    return each(logits, tangent, _harmonic)


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
