"""The exact radius of a step: the zero of the partition function nearest to the origin, certified, sample by sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from safestep._torch.shapes import Float
from safestep.zeros.partition import ALL_EQUAL, Partition, samples
from safestep.zeros.search import nearest

_FIELDS = 4


@dataclass(frozen=True, slots=True)
class NearestZero:
    r"""The zero of ``F`` nearest to the origin, for every sample.

    Attributes:
        radius: ``rho* = |t|``, float64, shape ``(*samples)``; inf where there is no zero, nan where none is certified.
        zero: ``t``, complex128, in the upper half plane: its conjugate is a zero too.
        error: certainly ``|radius - rho*| <= error``.
        reasons: why a radius is nan or inf, in the order of the flattened samples; an empty text where it is neither.
    """

    radius: Tensor
    zero: Tensor
    error: Tensor
    reasons: tuple[str, ...]


def nearest_zero(
    logits: Float[Tensor, "*samples classes"], tangent: Float[Tensor, "*samples classes"], *, tolerance: float = 1e-6
) -> NearestZero:
    r"""Return the exact radius of samples, and the zero that it ends at.

    Equation:
        ``rho* = min |t|`` over the complex zeros of ``F(t) = sum_k w_k exp(a_k t)``, ``w = softmax(z)``: the radius of
        convergence of the Taylor series of ``log F``, which cross-entropy contains. At least ``pi / spread(a)``.

    Args:
        logits: ``z``, nats, shape ``(*samples, classes)``; a class with -inf has no part in it.
        tangent: ``a``, how the logits change along the step; same shape. With ``a = J p`` one step is ``t = 1``, and
            ``1 / radius`` the exact step ratio.
        tolerance: the largest relative ``error`` of a radius that is not nan; ordinary ones are below 1e-11, those of
            a multiple zero near the root of the rounding.

    Returns:
        On the device of the logits; computed on the CPU in float64.

    Raises:
        ValueError: if the shapes differ, there are less than two classes, or the tolerance is not positive.
        TypeError: for numbers that are not floating-point.

    Example:
        >>> found = nearest_zero(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0]))
        >>> round(float(found.radius), 4), found.reasons
        (3.9014, ('',))

    Note:
        What is certified: the zeros were enclosed in discs by Rouché's theorem, and the argument principle counts no
        others in the disc around 0 that holds them; both with bounds on truncation and rounding. Whatever
        cannot be certified is nan, with a reason. Some milliseconds a sample.

    Reference:
        P. Sao, arXiv 2603.13552 (2026), for the zeros as the limit; how they are found and certified is our own.
    """
    if not tolerance > 0.0:
        raise ValueError(f"tolerance={tolerance!r}: expected a positive number")
    rows, reasons = [], []
    for partition in samples(logits, tangent):
        row, reason = _one(partition, tolerance)
        rows.append(row)
        reasons.append(reason)
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, _FIELDS).to(logits.device)
    radius, error, real, imaginary = (column.reshape(logits.shape[:-1]) for column in table.unbind(-1))
    return NearestZero(radius, torch.complex(real, imaginary), error, tuple(reasons))


def _one(partition: Partition | str, tolerance: float) -> tuple[list[float], str]:
    """Return radius, error and both parts of the zero of one sample, and a reason."""
    if partition == ALL_EQUAL:
        return [math.inf, 0.0, math.nan, math.nan], ALL_EQUAL
    found = partition if isinstance(partition, str) else nearest(partition)
    if isinstance(found, str) or isinstance(partition, str):
        return [math.nan] * _FIELDS, str(found)
    discs, _ = found
    first = abs(discs[0].centre)
    # the exponents were rounded, and so is the quotient below
    lowest = min(abs(disc.centre) - disc.radius for disc in discs)
    error = max(discs[0].radius, first - lowest) + 8 * torch.finfo(torch.float64).eps * first
    if error > tolerance * first:
        certain = f"the nearest zero is certain to {error / first:.2g} of its distance only"
        return [math.nan] * _FIELDS, f"{certain}: more than tolerance={tolerance:g}"
    zero = discs[0].centre / partition.half
    return [abs(zero), error / partition.half, zero.real, zero.imag], ""
