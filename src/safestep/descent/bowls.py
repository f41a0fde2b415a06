"""Scattered bowls: a finite sum whose batches move the minimum and not the curvature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safestep.descent.objective import DescentError, Point
from safestep.descent.quadratic_sum import QuadraticSum


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
    hessian: Any
    start: Point

    def __post_init__(self) -> None:
        """Check shapes."""
        object.__setattr__(self, "start", tuple(map(float, self.start)))
        object.__setattr__(self, "samples", torch.as_tensor(self.samples, dtype=torch.float64))
        h = torch.as_tensor(self.hessian, dtype=torch.float64)
        object.__setattr__(self, "hessian", h.diag() if h.dim() == 1 else h)
        d = self.dimension
        if (
            self.samples.dim() != 2
            or not len(self.samples)
            or self.samples.shape[1] != d
            or self.matrix.shape != (d, d)
        ):
            raise DescentError(
                f"samples of shape {tuple(self.samples.shape)}, Hessian of {tuple(h.shape)}, start of {d} numbers: "
                "expected (n, d), (d,) or (d, d), and d"
            )
        if not torch.allclose(self.matrix, self.matrix.T, rtol=1e-12, atol=0.0):
            raise DescentError(f"hessian = {self.matrix.tolist()}: expected a symmetric matrix")

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
        h = torch.as_tensor(hessian, dtype=torch.float64)
        return cls(torch.linalg.solve(h.diag() if h.dim() == 1 else h, scale * white).T, hessian, start)

    @property
    def minimum(self) -> Point:  # type: ignore[override]
        """The mean of the bottoms."""
        return tuple(self.samples.mean(0).tolist())

    @property
    def matrix(self) -> Tensor:
        """``H``, shape ``(d, d)``, in float64."""
        matrix: Tensor = self.hessian
        return matrix

    def term(self, x: Tensor, samples: Tensor) -> Tensor:
        """Return ``f_i(x)``."""
        away = x - samples
        return (away * (away @ self.matrix.to(x.dtype))).sum(-1) / 2

    def batch_gradient(self, x: Tensor, samples: Tensor) -> Tensor:
        """Return ``H (x - c_B)`` with the mean bottom ``c_B`` of the batch."""
        return (x - samples.mean(-2)) @ self.matrix.to(x.dtype)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return every ``H_i`` and ``b_i = H c_i``."""
        return self.matrix.expand(len(self.samples), -1, -1), self.samples @ self.matrix
