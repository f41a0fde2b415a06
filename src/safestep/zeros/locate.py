"""Zeros of a partition function: looked for where none is excluded, and each enclosed in a disc that holds it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from safestep.zeros.expansion import Expansion, expand
from safestep.zeros.partition import Partition

TILE = 1.0
"""Side of the tiles that the upper half plane is searched by."""
CORNER = 0.75
"""From the middle of a tile to beyond its corners."""
_ITERATIONS = 10
_STILL = 1e-3
"""The last step of a start that found something."""
_POLISH = 3
"""Expansions anew, and steps in each, that polish a zero."""
_RADII = 2.0 ** torch.arange(-52, 0, dtype=torch.float64)
_MULTIPLICITIES = 4


@dataclass(frozen=True, slots=True)
class Disc:
    """A disc that certainly holds as many zeros as it says, counted with multiplicity."""

    centre: complex
    radius: float
    zeros: int


def tiles(partition: Partition, inner: float, outer: float) -> Tensor:
    """Return the middles of the tiles between two distances from 0 that one term alone does not rule.

    Where a single term outweighs all others at both sides of a column it does so between them: the sum of the others
    divided by it is convex in Re s.
    """
    half = math.ceil(outer / TILE)
    columns = torch.arange(-half, half + 1, dtype=torch.float64) * TILE
    edges = torch.cat([columns - TILE / 2, columns[-1:] + TILE / 2])
    share, first = (terms := partition.terms(edges)).max(-1)
    ruled = share / terms.sum(-1) > 0.5 + 1e-9
    columns = columns[~(ruled[:-1] & ruled[1:] & (first[:-1] == first[1:]))]
    rows = (torch.arange(1, half + 1, dtype=torch.float64) + 0.5) * TILE
    middles = torch.complex(*torch.meshgrid(columns, rows, indexing="ij")).flatten()
    return middles[(middles.abs() > inner) & (middles.abs() <= outer)]


def candidates(partition: Partition, middles: Tensor, starts: int) -> Tensor:
    """Return where Newton's method ends up from some starts in each tile that is not clear of zeros."""
    if not len(middles):
        return middles
    local = expand(partition, middles)
    open_ = ~local.clear(torch.full_like(local.size, CORNER))
    local, middles = local.only(open_), middles[open_]
    line = (torch.arange(starts, dtype=torch.float64) + 0.5) / starts - 0.5
    grid = torch.complex(*torch.meshgrid(line, line, indexing="ij")).flatten() * TILE
    offsets, last = _newton(local, grid.expand(len(middles), -1), _ITERATIONS)
    found = (middles[:, None] + offsets)[(offsets.abs() < CORNER) & (last < _STILL)]
    # one of each, to a hair: what is the same is told by the discs
    keys = torch.view_as_real(found).mul(1e6).round()
    return torch.view_as_complex(torch.unique(keys, dim=0).div(1e6)) if len(found) else found


def _newton(local: Expansion, offsets: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Return offsets after some steps of Newton's method on F / F', which multiple zeros do not slow down.

    And the size of the last step.
    """
    step = torch.zeros_like(offsets)
    for _ in range(iterations):
        value, slope, bend = local.at(offsets, 3)
        step = value * slope / (slope * slope - value * bend)
        step = torch.where(step.isfinite(), step, 0.0)
        offsets = offsets - step / (step.abs() / 0.5).clamp(min=1.0)
        offsets = offsets / offsets.abs().clamp(min=1.0)
    return offsets, step.abs()


def enclose(partition: Partition, places: Tensor) -> Iterator[Disc]:
    """Enclose the zeros near some places, nearest to the origin first, in discs that do not touch.

    Equation:
        A disc ``|u| <= q`` holds exactly k zeros if ``|c_k| q^k > sum_(j != k) |c_j| q^j`` (Rouché, Pellet).
    """
    at_centre = torch.zeros(len(places), 1, dtype=torch.complex128)
    for _ in range(_POLISH):
        places = places + _newton(expand(partition, places), at_centre, _POLISH)[0][:, 0]
    discs: list[Disc] = []
    local = expand(partition, places)
    for place in range(len(places)):
        one = local.only(torch.full_like(_RADII, place, dtype=torch.long))
        sizes, error = one.sizes(_RADII), one.error(_RADII)
        most, index = sizes[:, : _MULTIPLICITIES + 1].max(-1)
        held = (2 * most > (sizes.sum(-1) + error) * (1 + 1e-12)) & (index > 0)
        if bool(held.any()):
            smallest = int(held.nonzero()[0])
            discs.append(Disc(complex(places[place]), float(_RADII[smallest]), int(index[smallest])))
    discs.sort(key=lambda disc: disc.radius)
    apart: list[Disc] = []
    for disc in discs:
        free = all(abs(disc.centre - other.centre) > disc.radius + other.radius for other in apart)
        if free and disc.centre.imag > disc.radius:  # the other side of the real axis mirrors this one
            apart.append(disc)
    yield from sorted(apart, key=lambda disc: abs(disc.centre))
