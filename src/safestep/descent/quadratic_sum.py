"""Finite sums of quadratics: the exact law knows their mini-batches."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from safestep.descent.finite_sum import FiniteSum

_FLAT = 1e-12
"""A curvature below this part of the largest is rounding."""


class QuadraticSum(FiniteSum):
    """A finite sum of quadratics, ``f_i`` with gradient ``H_i x - b_i``: the exact law knows its mini-batches."""

    @abstractmethod
    def affine(self) -> tuple[Tensor, Tensor]:
        """Return every ``H_i``, shape ``(n, d, d)``, and every ``b_i``, shape ``(n, d)``, in float64."""

    @property
    def matrix(self) -> Tensor:
        """``H``, the mean of the ``H_i``, shape ``(d, d)``, in float64."""
        return self.affine()[0].mean(0)

    def value(self, x: Tensor) -> Tensor:
        """Return ``f`` of every row: ``f(c) + (x - c).H (x - c) / 2`` at the minimum ``c``, whatever ``n`` is."""
        centre, h, least = (part.to(x.dtype) for part in self._whole)
        away = x - centre
        return least + (away * (away @ h)).sum(-1) / 2

    def gradient(self, x: Tensor) -> Tensor:
        """Return ``H (x - c)`` of every row."""
        centre, h, _ = (part.to(x.dtype) for part in self._whole)
        return (x - centre) @ h

    @cached_property
    def _whole(self) -> tuple[Tensor, Tensor, Tensor]:
        """The point of zero gradient (of least norm if there are many), ``H``, and ``f`` there."""
        hessians, offsets = self.affine()
        h = hessians.mean(0)
        centre = torch.linalg.pinv(h, rtol=_FLAT, hermitian=True) @ offsets.mean(0)
        return centre, h, super().value(centre[None])[0]
