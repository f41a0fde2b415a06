"""The zero nearest to the origin: tiles outwards until one is found, then the argument principle for the others."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from safestep.zeros.contour import pairs_within
from safestep.zeros.locate import CORNER, TILE, Disc, candidates, enclose, tiles
from safestep.zeros.partition import Partition

_STARTS = (2, 4)
"""Starts along each side of a tile; more where the first did not find all that there is."""
_FARTHEST = 2000.0
"""In s, where the search ends: the logits of a sample would lie some thousand nats apart."""
_MOST = 50_000
"""Tiles after which it ends."""


def nearest(partition: Partition) -> tuple[list[Disc], float] | str:
    """Return all zeros of the upper half plane in a disc around 0 that holds at least one, and its radius; or why not.

    The zeros are enclosed, nearest first, and as many as the argument principle counts in the disc.
    """
    outwards = _outwards(partition)
    if isinstance(outwards, str):
        return outwards
    places, reach = outwards
    problem = "the zero that was found could not be told from a cluster of zeros"
    for starts in _STARTS:
        if starts != _STARTS[0]:
            places = candidates(partition, tiles(partition, 0.0, reach), starts)
        if not (discs := list(enclose(partition, places))):
            continue
        radius, inside = _circle(discs, reach - CORNER)
        pairs, count = pairs_within(partition, radius), sum(disc.zeros for disc in inside)
        if pairs is not None and pairs == count:
            return inside, radius
        counted = "cannot count the zeros" if pairs is None else f"counts {pairs} pairs of zeros"
        problem = (
            f"the argument principle {counted} within |t| < {radius / partition.half:.6g}, and {count} were enclosed"
        )
    return problem


def within(partition: Partition, radius: float) -> list[Disc] | str:
    """Return all zeros of the upper half plane with ``|s| < radius``, enclosed, nearest first; or why not."""
    pairs, count = pairs_within(partition, radius), 0
    if pairs is None:
        return f"a zero lies too near |t| = {radius / partition.half:.6g} to count those within"
    for starts in _STARTS:
        places = candidates(partition, tiles(partition, 0.0, radius + CORNER), starts)
        inside = [disc for disc in enclose(partition, places) if abs(disc.centre) + disc.radius < radius]
        if (count := sum(disc.zeros for disc in inside)) == pairs:
            return inside
    return f"the argument principle counts {pairs} pairs of zeros, and {count} were enclosed"


def _outwards(partition: Partition) -> tuple[Tensor, float] | str:
    """Return where zeros may be, from tiles that hold the nearest one that is seen and a little more, and how far."""
    inner, outer, seen, places = 0.0, 4.0, 0, torch.zeros(0, dtype=torch.complex128)
    while outer < _FARTHEST and seen < _MOST:
        some = tiles(partition, inner, outer)
        seen += len(some)
        places = torch.cat([places, candidates(partition, some, _STARTS[0])])
        if len(places):
            enough = 1.1 * float(places.abs().min()) + CORNER + TILE / 4
            if enough <= outer:
                return places, outer
            inner, outer = outer, enough
        else:
            inner, outer = outer, 1.15 * outer + 1.0
    return f"no zero found up to |t| = {inner / partition.half:.6g}, where the search ends"


def _circle(discs: list[Disc], reach: float) -> tuple[float, list[Disc]]:
    """Return a radius between the nearest zero and the reach, as far from all zeros as may be, and what it holds."""
    ends = sorted({abs(disc.centre) for disc in discs})
    first = ends[0]
    marks = [first, *(end for end in ends if first < end < reach), max(reach, 1.02 * first)]
    low, high = max(pairwise(marks), key=lambda gap: gap[1] - gap[0])
    radius = math.sqrt(low * high)
    return radius, [disc for disc in discs if abs(disc.centre) + disc.radius < radius]
