"""The argument principle: how many zeros lie within |s| < R, by a walk along the circle that no zero can hide from."""

from __future__ import annotations

import math

import torch

from safestep.zeros.expansion import REACH, expand
from safestep.zeros.partition import Partition

_FIRST = 1.2
"""Length of the arcs to begin with; those that are not clear are halved."""
_HALVINGS = 40
_MOST = 100_000
"""Arcs after which a circle is given up."""
_WHOLE = 1e-3
"""How near the winding number must come to a whole one: it is one, up to rounding."""


def pairs_within(partition: Partition, radius: float) -> int | None:
    r"""Count the pairs of conjugate zeros with ``|s| < radius``; None where a zero lies too near the circle to tell.

    Equation:
        F is real and positive on the real axis, so that its zeros are pairs, and its argument along the upper half of
        the circle grows by ``2 pi`` for each. Every arc lies in a disc where F is certainly not zero and
        ``exp(-c u) F`` stays in a half plane, so that its argument there is the principal one.
    """
    edges = torch.linspace(0.0, math.pi, max(8, math.ceil(math.pi * radius / _FIRST)) + 1, dtype=torch.float64)
    starts, ends, total, seen = edges[:-1], edges[1:], 0.0, 0
    for _ in range(_HALVINGS):
        middles = (starts + ends) / 2
        centres = torch.polar(torch.full_like(middles, radius), middles)
        seen += len(middles)
        if seen > _MOST:
            return None
        local = expand(partition, centres)
        corners = torch.polar(torch.tensor(radius, dtype=torch.float64), torch.stack([starts, ends], -1))
        offsets = corners - centres[:, None]
        reach = offsets.abs().amax(-1) * (1 + 1e-9)
        clear = local.clear(reach) & (reach <= REACH)
        first, last = local.at(offsets)[0].unbind(-1)
        grown = (last / first).angle() + (local.tilt * (offsets[:, 1] - offsets[:, 0])).imag
        total += float(grown[clear].sum())
        starts, middles, ends = starts[~clear], middles[~clear], ends[~clear]
        if not len(middles):
            pairs = round(total / math.tau)
            return pairs if abs(total / math.tau - pairs) < _WHOLE else None
        starts, ends = torch.cat([starts, middles]), torch.cat([middles, ends])
    return None
