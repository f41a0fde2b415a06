"""Finite sums of quadratics, whose mini-batches the exact law knows: scattered bowls, and a linear regression."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from safestep.descent.finite_sum import FiniteSum
from safestep.descent.objective import DescentError, Point
from safestep.descent.quadratic import Quadratic, check_symmetric

_FLAT = 1e-12
"""A curvature below this part of the largest is rounding."""


class QuadraticSum(FiniteSum):
    """A finite sum of quadratics, ``f_i`` with gradient ``H_i x - b_i``: the exact law knows its mini-batches."""

    @abstractmethod
    def affine(self) -> tuple[Tensor, Tensor]:
        """Return every ``H_i``, shape ``(n, d, d)``, and every ``b_i``, shape ``(n, d)``, in float64."""

    @cached_property
    def whole(self) -> Quadratic:
        """The mean of the terms; its minimum is the one of least norm if there are many."""
        hessians, offsets = self.affine()
        # the mean of equal matrices would be rounded, and one of symmetric ones perhaps not symmetric to the last bit
        mean = hessians.mean(0)
        h = hessians[0] if (hessians == hessians[0]).all() else (mean + mean.T) / 2
        centre = torch.linalg.pinv(h, rtol=_FLAT, hermitian=True) @ offsets.mean(0)
        least = super().value(centre[None]).item()
        return Quadratic(tuple(map(tuple, h.tolist())), self.start, tuple(centre.tolist()), least)

    @property
    def matrix(self) -> Tensor:
        """``H``, the mean of the ``H_i``, shape ``(d, d)``, in float64."""
        return self.whole.matrix

    @property
    def minimum(self) -> Point:  # type: ignore[override]
        """Where the gradient of the mean is zero: the mean of the bottoms, or the least-squares solution."""
        return self.whole.minimum

    def value(self, x: Tensor) -> Tensor:
        """Return ``f`` of every row, in closed form whatever ``n`` is."""
        return self.whole.value(x)

    def gradient(self, x: Tensor) -> Tensor:
        """Return ``H (x - c)`` of every row."""
        return self.whole.gradient(x)


@dataclass(frozen=True, eq=False)
class Bowls(QuadraticSum):
    r"""One bowl a sample, all of one shape, their bottoms scattered: the batch moves the minimum, not the curvature.

    Equation:
        ``f_i(x) = (x - c_i).H (x - c_i) / 2``. The gradient of one sample is off the mean gradient by
        ``H (c - c_i)``, wherever ``x`` is.

    Attributes:
        samples: the bottoms ``c_i``, shape ``(n, d)``.
        hessian: ``H``, curvatures along the axes or a symmetric matrix.
        start: where a descent begins.

    Example:
        >>> bowls = Bowls(torch.tensor([[1.0], [3.0]]), hessian=(2.0,), start=(0.0,))
        >>> bowls.minimum, bowls.value(torch.tensor([[2.0]]))
        ((2.0,), tensor([1.]))
    """

    samples: Tensor
    hessian: Any  # a tensor from construction on
    start: Point

    def __post_init__(self) -> None:
        """Turn numbers into tensors and check that they go together."""
        object.__setattr__(self, "start", tuple(map(float, self.start)))
        object.__setattr__(self, "samples", torch.as_tensor(self.samples, dtype=torch.float64))
        object.__setattr__(self, "hessian", _square(self.hessian))
        n, d = len(self.samples), self.dimension
        if n == 0 or self.samples.shape != (n, d) or self.hessian.shape != (d, d):
            raise DescentError(
                f"samples of shape {tuple(self.samples.shape)}, Hessian of {tuple(self.hessian.shape)}, start of {d} "
                "numbers: expected (n, d), (d,) or (d, d), and d"
            )
        check_symmetric(self.hessian)

    @classmethod
    def scattered(cls, samples: int, hessian: Any, start: Point, *, scale: float = 1.0, seed: int = 0) -> Bowls:
        r"""Return bowls whose single-sample gradients have mean zero at the origin and covariance ``scale^2 I``.

        Args:
            samples: ``n``, more than ``d``.
            hessian: ``H``, without a zero eigenvalue.
            start: where a descent begins.
            scale: the standard deviation of each component of a sample's gradient over the ``n`` samples.
            seed: of the scatter.

        Example:
            >>> bowls = Bowls.scattered(100, (2.0, 4.0), (-5.0, -2.0))
            >>> single = bowls.batch_gradient(torch.zeros(100, 2).double(), bowls.samples[:, None])
            >>> torch.allclose(single.T @ single / 100, torch.eye(2).double())
            True
        """
        d = len(start)
        if samples <= d:
            raise DescentError(f"{samples} samples in {d} variables: expected more samples than variables")
        noise = torch.randn(samples, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        noise = noise - noise.mean(0)
        # whitened: the covariance over these samples is exactly the one asked for
        white = torch.linalg.solve_triangular(torch.linalg.cholesky(noise.T @ noise / samples), noise.T, upper=False)
        return cls(torch.linalg.solve(_square(hessian), scale * white).T, hessian, start)

    def term(self, x: Tensor, samples: Tensor) -> Tensor:
        """Return ``f_i(x)``."""
        h: Tensor = self.hessian.to(x.dtype)
        away = x - samples
        return (away * (away @ h)).sum(-1) / 2

    def batch_gradient(self, x: Tensor, samples: Tensor) -> Tensor:
        """Return ``H (x - c_B)`` with the mean bottom ``c_B`` of the batch."""
        h: Tensor = self.hessian.to(x.dtype)
        return (x - samples.mean(-2)) @ h

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return every ``H_i`` and ``b_i = H c_i``."""
        return self.hessian.expand(len(self.samples), -1, -1), self.samples @ self.hessian


@dataclass(frozen=True, eq=False)
class LeastSquares(QuadraticSum):
    r"""A linear regression: half the squared error of each sample. The noise of a batch grows with the error.

    Equation:
        ``f_i(x) = (a_i.x - y_i)^2 / 2``, with Hessian ``a_i a_i'``.

    Attributes:
        inputs: ``a_i``, shape ``(n, d)``.
        answers: ``y_i``, shape ``(n,)``.
        start: where a descent begins.

    Example:
        >>> line = LeastSquares(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 2.0]), start=(0.0,))
        >>> line.value(torch.tensor([[0.0], [1.0]]))
        tensor([1.2500, 0.0000])
    """

    inputs: Tensor
    answers: Tensor
    start: Point

    def __post_init__(self) -> None:
        """Check shapes."""
        object.__setattr__(self, "start", tuple(map(float, self.start)))
        object.__setattr__(self, "inputs", torch.as_tensor(self.inputs, dtype=torch.float64))
        object.__setattr__(self, "answers", torch.as_tensor(self.answers, dtype=torch.float64))
        n, d = len(self.inputs), self.dimension
        if n == 0 or self.inputs.shape != (n, d) or self.answers.shape != (n,):
            raise DescentError(
                f"inputs of shape {tuple(self.inputs.shape)}, answers of {tuple(self.answers.shape)}, start of {d} "
                "numbers: expected (n, d), (n,) and d"
            )

    @property
    def samples(self) -> Tensor:  # type: ignore[override]
        """Inputs and answer of a sample in one row, shape ``(n, d + 1)``."""
        return torch.cat([self.inputs, self.answers[:, None]], 1)

    def term(self, x: Tensor, samples: Tensor) -> Tensor:
        """Return ``f_i(x)``."""
        return ((samples[..., :-1] * x).sum(-1) - samples[..., -1]).square() / 2

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return every ``a_i a_i'`` and ``y_i a_i``."""
        return self.inputs[:, :, None] * self.inputs[:, None, :], self.answers[:, None] * self.inputs


def _square(hessian: Any) -> Tensor:
    h = torch.as_tensor(hessian, dtype=torch.float64)
    return h.diag() if h.dim() == 1 else h
