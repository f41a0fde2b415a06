"""Means of many terms, one a sample: what mini-batches are drawn from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from safestep.lab.descent.objective import DescentError, Objective, Point, bend_of, slope_of

_FLAT = 1e-12
"""A curvature below this part of the largest is rounding."""
_NUMBERS = 2**23
"""How many numbers of samples are broadcast at a time."""


class FiniteSum(Objective):
    r"""The mean of a term over ``n`` samples.

    Equation:
        ``f(x) = (1 / n) sum_i f_i(x)``; on a batch ``B`` of ``b`` samples, ``f_B(x) = (1 / b) sum_{i in B} f_i(x)``.

    Attributes:
        samples: one a row, shape ``(n, k)``.
    """

    samples: Tensor

    @abstractmethod
    def term(self, x: Tensor, samples: Tensor) -> Tensor:
        """Return ``f_i(x)``.

        Args:
            x: shape ``(*runs, 1, d)``.
            samples: shape ``(*runs, b, k)`` or ``(b, k)``.

        Returns:
            The terms, shape ``(*runs, b)``.
        """

    def value(self, x: Tensor) -> Tensor:
        """Return ``f`` of every row, over all samples; a bounded number of terms at a time."""
        samples = self.samples.to(x.dtype)
        rows = max(1, _NUMBERS // samples.numel())
        if x.dim() != 2 or len(x) <= rows:
            return self.on(x, samples)
        return torch.cat([self.on(piece, samples) for piece in x.split(rows)])

    def on(self, x: Tensor, samples: Tensor) -> Tensor:
        """Return ``f_B`` of every row, on samples of its own."""
        return self.term(x.unsqueeze(-2), samples).mean(-1)

    def batch_gradient(self, x: Tensor, samples: Tensor) -> Tensor:
        """Return the gradient of ``f_B`` at every row, shape ``(*runs, d)``."""
        return slope_of(lambda point: self.on(point, samples), x)

    def batch_bend(self, x: Tensor, p: Tensor, samples: Tensor) -> Tensor:
        """Return ``p.H_B p`` at every row, shape ``(*runs,)``."""
        return bend_of(lambda point: self.on(point, samples), x, p)


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
        for name in ("inputs", "answers"):
            object.__setattr__(self, name, torch.as_tensor(getattr(self, name), dtype=torch.float64))
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

    @property
    def minimum(self) -> Point:  # type: ignore[override]
        """The least-squares solution."""
        return tuple(self._whole[0].tolist())

    def term(self, x: Tensor, samples: Tensor) -> Tensor:
        """Return ``f_i(x)``."""
        return ((samples[..., :-1] * x).sum(-1) - samples[..., -1]).square() / 2

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return every ``a_i a_i'`` and ``y_i a_i``."""
        return self.inputs[:, :, None] * self.inputs[:, None, :], self.answers[:, None] * self.inputs


@dataclass(frozen=True, eq=False)
class Terms(FiniteSum):
    r"""A finite sum of the user's own terms, differentiated by torch.

    Attributes:
        f: ``(x, samples) -> terms``, from shapes ``(*runs, 1, d)`` and ``(*runs, b, k)`` to ``(*runs, b)``.
        samples: shape ``(n, k)``.
        start: where a descent begins.
        minimum: a point where the mean is least, or None.

    Example:
        >>> median = Terms(lambda x, s: (x - s).abs().sum(-1), torch.tensor([[1.0], [2.0], [9.0]]), start=(0.0,))
        >>> median.value(torch.tensor([[2.0]]))
        tensor([2.6667])
    """

    f: Callable[[Tensor, Tensor], Tensor]
    samples: Tensor
    start: Point
    minimum: Point | None = None

    def __post_init__(self) -> None:
        """Check shapes."""
        object.__setattr__(self, "start", tuple(map(float, self.start)))
        object.__setattr__(self, "samples", torch.as_tensor(self.samples, dtype=torch.float64))
        if self.samples.dim() != 2 or not len(self.samples):
            raise DescentError(f"samples of shape {tuple(self.samples.shape)}: expected (n, k), one sample a row")

    def term(self, x: Tensor, samples: Tensor) -> Tensor:
        """Return ``f_i(x)``."""
        return self.f(x, samples)
