"""The zeros of the partition function in a disc around the origin: how many, and which."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from safestep._torch.shapes import Float
from safestep.zeros.contour import pairs_within
from safestep.zeros.partition import ALL_EQUAL, Partition, samples
from safestep.zeros.search import within


def count_zeros(
    logits: Float[Tensor, "*samples classes"], tangent: Float[Tensor, "*samples classes"], radius: float
) -> Tensor:
    r"""Count the zeros of ``F`` in a disc around the origin, by the argument principle.

    Args:
        logits: ``z``, see `nearest_zero`.
        tangent: ``a``.
        radius: of the disc ``|t| < radius``, positive and finite.

    Returns:
        The number of zeros with multiplicity, both of each pair, shape ``(*samples)``; nan where it cannot be told: a
        zero lies on the circle but for rounding, or a number is not finite.

    Raises:
        ValueError: if the shapes differ, there are less than two classes, or the radius is not positive and finite.
        TypeError: for numbers that are not floating-point.

    Example:
        >>> count_zeros(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]), 10.0)  # i pi and i 3 pi
        tensor([4.], dtype=torch.float64)
    """
    _check_radius(radius)
    counts = []
    for partition in samples(logits, tangent):
        if isinstance(partition, str):
            counts.append(0.0 if partition == ALL_EQUAL else math.nan)
        else:
            pairs = pairs_within(partition, radius * partition.half)
            counts.append(math.nan if pairs is None else 2.0 * pairs)
    return torch.tensor(counts, dtype=torch.float64).reshape(logits.shape[:-1]).to(logits.device)


def zeros_within(logits: Float[Tensor, " classes"], tangent: Float[Tensor, " classes"], radius: float) -> Tensor:
    """Return the zeros of one sample in a disc around the origin, those of the upper half plane, nearest first.

    Args:
        logits: ``z``, see `nearest_zero`; one sample.
        tangent: ``a``.
        radius: of the disc ``|t| < radius``, positive and finite.

    Returns:
        ``t``, complex128; a double zero appears twice. The argument principle counts no others.

    Raises:
        ArithmeticError: if not all of them can be certified.
        ValueError: if the shapes differ, there are less than two classes, or the radius is not positive and finite.
        TypeError: for numbers that are not floating-point.

    Example:
        >>> zeros_within(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]), 10.0).imag / math.pi
        tensor([1., 3.], dtype=torch.float64)
    """
    _check_radius(radius)
    if logits.ndim != 1:
        raise ValueError(f"the logits have the shape {tuple(logits.shape)}; expected one sample, shape (classes,)")
    (partition,) = samples(logits, tangent)
    if partition == ALL_EQUAL:
        return torch.zeros(0, dtype=torch.complex128, device=logits.device)
    found = partition if isinstance(partition, str) else _listed(partition, radius)
    if isinstance(found, str):
        raise ArithmeticError(f"{found}: no list of zeros is certain to be whole")  # noqa: TRY004 (no type is wrong)
    return torch.tensor(found, dtype=torch.complex128, device=logits.device)


def _listed(partition: Partition, radius: float) -> list[complex] | str:
    """Return the zeros in units of t, each as often as it is one; or why not."""
    discs = within(partition, radius * partition.half)
    if isinstance(discs, str):
        return discs
    return [disc.centre / partition.half for disc in discs for _ in range(disc.zeros)]


def _check_radius(radius: float) -> None:
    if not 0.0 < radius < math.inf:
        raise ValueError(f"radius={radius!r}: expected a positive, finite number")
