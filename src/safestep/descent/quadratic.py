"""Quadratics: the objectives on which everything about a descent is known exactly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from safestep.descent.objective import DescentError, Objective, Point

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Quadratic(Objective):
    r"""A quadratic with curvatures along the axes, or any symmetric Hessian.

    Equation:
        ``f(x) = f_c + (x - c).H(x - c) / 2``, gradient ``H(x - c)``. Gradient descent at a constant rate converges
        where ``0 < eta h < 2`` for every eigenvalue ``h`` of ``H``.

    Attributes:
        hessian: the curvatures ``h_i``, one a variable, or ``H`` as a symmetric matrix; negative ones are allowed.
        start: where a descent begins.
        minimum: ``c``, where the gradient is zero; the origin by default.
        least: ``f_c``, the value there.

    Raises:
        DescentError: at construction, for a Hessian, start or minimum whose shapes do not go together.

    Example:
        >>> PLANE.value(torch.tensor([[-5.0, -2.0]])), PLANE.gradient(torch.tensor([[-5.0, -2.0]]))
        (tensor([33.]), tensor([[-10.,  -8.]]))

    Source:
        "Stochastic Gradient Descent", Dive into Deep Learning (d2l.ai), for `PLANE`.
    """

    hessian: Point | Matrix
    start: Point
    minimum: Point = ()
    least: float = 0.0

    def __post_init__(self) -> None:
        """Turn arrays into tuples and check that they go together."""
        h, start, least = (torch.as_tensor(v, dtype=torch.float64) for v in (self.hessian, self.start, self.least))
        centre = torch.as_tensor(self.minimum, dtype=torch.float64) if len(self.minimum) else torch.zeros_like(start)
        d = len(start) if start.dim() == 1 else 0
        if d == 0 or centre.shape != (d,) or h.shape not in {(d,), (d, d)}:
            raise DescentError(
                f"Hessian of shape {tuple(h.shape)}, start of {tuple(start.shape)}, minimum of {tuple(centre.shape)}: "
                "expected d curvatures or a d by d matrix, and points of d numbers"
            )
        if not all(part.isfinite().all() for part in (h, start, centre, least)):
            raise DescentError(f"{self}: expected finite numbers")
        check_symmetric(h)
        rows = tuple(map(tuple, h.tolist())) if h.dim() == 2 else tuple(h.tolist())
        for name, value in (("hessian", rows), ("start", tuple(start.tolist())), ("minimum", tuple(centre.tolist()))):
            object.__setattr__(self, name, value)

    @property
    def matrix(self) -> Tensor:
        """``H``, shape ``(d, d)``, in float64."""
        h = torch.tensor(self.hessian, dtype=torch.float64)
        return h if h.dim() == 2 else h.diag()

    def value(self, x: Tensor) -> Tensor:
        """Return ``f`` of every row."""
        h, centre = _constants(self, x.dtype)
        return self.least + _form(h, x - centre) / 2

    def gradient(self, x: Tensor) -> Tensor:
        """Return ``H(x - c)`` of every row."""
        h, centre = _constants(self, x.dtype)
        return _times(h, x - centre)

    def bend(self, x: Tensor, p: Tensor) -> Tensor:
        """Return ``p.Hp`` of every row."""
        return _form(_constants(self, p.dtype)[0], p)


def check_symmetric(hessian: Tensor) -> None:
    """Raise DescentError for a matrix that is not symmetric; curvatures along the axes are."""
    if hessian.dim() == 2 and not torch.allclose(hessian, hessian.T, rtol=1e-12, atol=0.0):
        raise DescentError(f"hessian = {hessian.tolist()}: expected a symmetric matrix")


@lru_cache(maxsize=64)
def _constants(quadratic: Quadratic, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.tensor(quadratic.hessian, dtype=dtype), torch.tensor(quadratic.minimum, dtype=dtype)


def _times(h: Tensor, x: Tensor) -> Tensor:
    return x * h if h.dim() == 1 else x @ h


def _form(h: Tensor, x: Tensor) -> Tensor:
    return (x * _times(h, x)).sum(-1)


PLANE = Quadratic((2.0, 4.0), start=(-5.0, -2.0))
"""``x1^2 + 2 x2^2``, the plane of the published runs."""
VALLEY = Quadratic((1.0, 50.0), start=(-5.0, -0.5))
"""A narrow valley, ``(x1^2 + 50 x2^2) / 2``: the steep direction limits the rate, the flat one sets the pace."""
