"""The partition function of a sample along a step, F(t) = sum_k w_k exp(a_k t), in units that its size drops out of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from safestep.formulas.softmax_ratio import spread

ALL_EQUAL = "the step moves all logits alike: there is no zero"
_NOT_FINITE = "a logit or its change is not finite"
_SMALLEST, _LARGEST = 1e-290, 1e290
"""Spreads between which neither the units nor a distance in them leave float64."""


@dataclass(frozen=True, slots=True)
class Partition:
    r"""``F`` times an exponential, which has no zeros: exponents between -1 and 1, weights up to 1.

    Attributes:
        exponents: ``b_k = (a_k - middle) / half``, float64 on the CPU, shape ``(classes,)``.
        logs: ``log w_k``, the largest 0.
        half: half the spread of a: ``s = half t``, in which no zero lies nearer than ``pi / 2``.
    """

    exponents: Tensor
    logs: Tensor
    half: float

    def terms(self, real: Tensor) -> Tensor:
        """Return the sizes of the terms at real parts of s, the largest 1, shape ``(*real, classes)``."""
        logs = torch.addcmul(self.logs, real[..., None], self.exponents)
        return (logs - logs.amax(-1, keepdim=True)).exp()

    @classmethod
    def of(cls, logits: Tensor, tangent: Tensor) -> Partition | str:
        """Return it for one sample, or why there is none; a class with a logit of -inf has no part in it."""
        z, a = logits.detach().to("cpu", torch.float64), tangent.detach().to("cpu", torch.float64)
        alive = z != -math.inf
        z, a = z[alive], a[alive]
        if not len(z) or not bool(z.isfinite().all() & a.isfinite().all()):
            return _NOT_FINITE
        low, high = (float(end) for end in a.aminmax())
        middle, half = low / 2 + high / 2, high / 2 - low / 2
        if low == high:
            return ALL_EQUAL
        if not _SMALLEST < half < _LARGEST:
            return f"the logits move by {2 * half:.3g} nats against each other: beyond what float64 can hold"
        return cls((a - middle) / half, z - z.max(), half)


def samples(logits: Tensor, tangent: Tensor) -> Iterator[Partition | str]:
    """Return the partition function of every sample, in order.

    Raises:
        ValueError: if the shapes differ or are no ``(*samples, classes)``.
        TypeError: if one is not of a real floating type.
    """
    for name, tensor in (("logits", logits), ("tangent", tangent)):
        if not tensor.is_floating_point():
            raise TypeError(f"{name} is of {tensor.dtype}; expected real floating-point numbers")
    if logits.shape != tangent.shape:
        raise ValueError(
            f"the logits have the shape {tuple(logits.shape)}, their change has {tuple(tangent.shape)}; expected one "
            "shape (*samples, classes): z and a = J p of the same samples"
        )
    spread(tangent)  # no class, or a single one: says what to do
    return map(Partition.of, *(tensor.reshape(-1, tensor.shape[-1]) for tensor in (logits, tangent)))
