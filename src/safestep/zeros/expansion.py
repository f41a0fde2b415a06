"""Taylor expansions of a partition function at many places, with a bound on all that they leave out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from safestep.zeros.partition import Partition

REACH = 1.0
"""How far from its centre an expansion may be used: there what is cut off is below rounding."""
_DEGREE = 26
_EPS = torch.finfo(torch.float64).eps
_ROUNDINGS = 160
"""Roundings of a term by exponential, sine, cosine, powers and the product of two series, and some to spare."""
_FACTORIALS = torch.tensor([math.factorial(j) for j in range(_DEGREE)], dtype=torch.float64)
_LAG = (torch.arange(_DEGREE)[:, None] - torch.arange(_DEGREE)).neg()
_CHUNK = 1 << 20
"""Terms that are held at a time."""


@dataclass(frozen=True, slots=True)
class Expansion:
    r"""``exp(-c u) F(s + u) = sum_j coefficients_j u^j`` up to an error, at every centre s, each in units of its own.

    Attributes:
        coefficients: complex, shape ``(centres, degree)``.
        tilt: ``c``, complex, at most 1 in size; any will do, since an exponential has no zeros.
        size: the sum of the sizes of the terms of F at s.
        rounding: a bound on the error of F at s.
    """

    coefficients: Tensor
    tilt: Tensor
    size: Tensor
    rounding: Tensor

    def error(self, reach: Tensor) -> Tensor:
        """Bound the error of the series for ``|u| <= reach``, which broadcasts with the centres."""
        grown = (2 * reach).exp()  # |b_k - c| is at most 2
        return grown * (self.rounding + self.size * (2 * reach) ** _DEGREE / float(math.factorial(_DEGREE)))

    def sizes(self, reach: Tensor) -> Tensor:
        """Return ``|coefficients_j| reach^j``, shape ``(*reach, degree)``."""
        return self.coefficients.abs() * _powers(reach)

    def clear(self, reach: Tensor) -> Tensor:
        """Return where F has certainly no zero with ``|u| <= reach``: the first term outweighs the others."""
        sizes = self.sizes(reach)
        return sizes[:, 0] > (sizes[:, 1:].sum(-1) + self.error(reach)) * (1 + 64 * _EPS)

    def at(self, offsets: Tensor, orders: int = 1) -> list[Tensor]:
        """Return ``exp(-c u) F(s + u)`` and derivatives of it at offsets u, each of shape ``(centres, offsets)``."""
        powers = _powers(offsets)
        rows = [self.coefficients[:, k:] * (_FACTORIALS[k:] / _FACTORIALS[: _DEGREE - k]) for k in range(orders)]
        return [(powers[..., : row.shape[-1]] @ row[..., None])[..., 0] for row in rows]

    def only(self, which: Tensor) -> Expansion:
        """Return the expansions at some of the centres."""
        return Expansion(self.coefficients[which], self.tilt[which], self.size[which], self.rounding[which])


def expand(partition: Partition, centres: Tensor, tilt: complex | None = None) -> Expansion:
    """Expand F at complex places s.

    Args:
        partition: F.
        centres: complex128, shape ``(centres,)``.
        tilt: ``c`` for all; None for ``F' / F`` of each, shortened to 1, which makes the second term small.
    """
    b, (classes,) = partition.exponents, partition.exponents.shape
    table = _powers(b) / _FACTORIALS
    weight = partition.logs.abs() + classes + _ROUNDINGS
    series, sizes, roundings = [], [], []
    for some in centres.split(max(1, _CHUNK // classes)):
        terms, phases = partition.terms(some.real), some.imag[:, None] * b
        series.append(torch.complex((terms * phases.cos()) @ table, (terms * phases.sin()) @ table))
        sizes.append(terms.sum(-1))
        roundings.append(_EPS * (terms @ weight + 4 * some.abs() * sizes[-1]))
    plain, size, rounding = torch.cat(series), torch.cat(sizes), torch.cat(roundings)
    if tilt is None:
        quotient = torch.where(plain[:, 0] == 0, 0.0, plain[:, 1] / plain[:, 0])
        c = quotient / quotient.abs().clamp(min=1.0)
    else:
        c = torch.full_like(plain[:, 0], tilt)
    exponential = _powers(-c) / _FACTORIALS
    toeplitz = torch.where(_LAG >= 0, exponential[:, _LAG.clamp(min=0)], 0.0)
    return Expansion((plain[:, None, :] @ toeplitz)[:, 0], c, size, rounding)


def _powers(of: Tensor) -> Tensor:
    """Return the powers from 0 on, in a last dimension; a running product, which is faster than pow."""
    powers = of[..., None].repeat(*(1,) * of.ndim, _DEGREE)
    powers[..., 0] = 1.0
    return powers.cumprod(-1)
