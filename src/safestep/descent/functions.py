"""Objectives that are no quadratics: a bent valley, a plateau with one minimum, a saddle, and the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from safestep.descent.objective import DescentError, Objective, Point


@dataclass(frozen=True)
class Function(Objective):
    r"""A function of the user's, differentiated by torch, or with a gradient of the user's.

    Attributes:
        f: from ``x`` of shape ``(*runs, d)`` to the values, shape ``(*runs,)``, made of torch operations. Write
            ``x[..., 0]`` for the first variable; rows must not mix.
        start: where a descent begins; its length is ``d``.
        own_gradient: from ``x`` to the gradients, shape ``(*runs, d)``; None to differentiate ``f``.
        minimum: a point where ``f`` is least, for pictures; None if it is not known.

    Example:
        >>> bowl = Function(lambda x: x[..., 0] ** 2 + 2 * x[..., 1] ** 2, start=(-5.0, -2.0))
        >>> bowl.gradient(torch.tensor([[-5.0, -2.0]]))
        tensor([[-10.,  -8.]])
    """

    f: Callable[[Tensor], Tensor]
    start: Point
    own_gradient: Callable[[Tensor], Tensor] | None = None
    minimum: Point | None = None

    def __post_init__(self) -> None:
        """Turn arrays into tuples."""
        object.__setattr__(self, "start", tuple(map(float, self.start)))
        if self.minimum is not None:
            object.__setattr__(self, "minimum", tuple(map(float, self.minimum)))

    @classmethod
    def of_coordinates(
        cls,
        f: Callable[..., Tensor],
        start: Point,
        own_gradient: Callable[..., tuple[Tensor, ...]] | None = None,
        minimum: Point | None = None,
    ) -> Function:
        """Return the objective of a function ``f(x1, x2, ...)`` of one argument a variable.

        Args:
            f: from ``d`` tensors of one shape to the values, of the same shape.
            start: where a descent begins.
            own_gradient: from ``d`` tensors to ``d`` tensors; None to differentiate ``f``.
            minimum: a point where ``f`` is least, or None.

        Example:
            >>> Function.of_coordinates(lambda x1, x2: x1**2 + 2 * x2**2, start=(-5, -2)).dimension
            2
        """
        gradient = None
        if own_gradient is not None:

            def gradient(x: Tensor) -> Tensor:
                return torch.stack(torch.broadcast_tensors(*own_gradient(*x.unbind(-1))), -1)

        return cls(lambda x: f(*x.unbind(-1)), start, gradient, minimum)

    def value(self, x: Tensor) -> Tensor:
        """Return ``f`` of every row."""
        return self.f(x)

    def gradient(self, x: Tensor) -> Tensor:
        """Return the user's gradient, or that of ``f`` by one reverse pass."""
        if self.own_gradient is None:
            return super().gradient(x)
        return self.own_gradient(x.clone())  # it may write into x, or keep it, and x are the runs themselves


@dataclass(frozen=True)
class Rosenbrock(Objective):
    r"""A valley along a parabola: easy to get into, slow to walk along.

    Equation:
        ``f(x) = sum_i (1 - x_i)^2 + b (x_{i+1} - x_i^2)^2``, least at ``(1, ..., 1)`` with ``f = 0``.

    Attributes:
        steepness: ``b``, of the walls.
        start: where a descent begins, two numbers or more.

    Example:
        >>> Rosenbrock().value(torch.tensor([[1.0, 1.0], [0.0, 0.0], [-1.0, 2.0]]))
        tensor([  0.,   1., 104.])

    Source:
        H. H. Rosenbrock, "An automatic method for finding the greatest or least value of a function", The Computer
        Journal 3 (1960).
    """

    steepness: float = 100.0
    start: Point = (-1.5, 2.0)

    def __post_init__(self) -> None:
        """Check the number of variables."""
        if len(self.start) < 2:
            raise DescentError(f"start = {self.start}: expected two numbers or more")

    @property
    def minimum(self) -> Point:  # type: ignore[override]
        """The point ``(1, ..., 1)``."""
        return (1.0,) * self.dimension

    def value(self, x: Tensor) -> Tensor:
        """Return ``f`` of every row."""
        here, there = x[..., :-1], x[..., 1:]
        return ((1.0 - here).square() + self.steepness * (there - here.square()).square()).sum(-1)


@dataclass(frozen=True)
class _OfTwoVariables(Objective):
    """What the functions of exactly two variables share."""

    start: Point
    minimum: Point

    def __post_init__(self) -> None:
        """Check the number of variables."""
        if len(self.start) != 2:
            raise DescentError(f"start = {self.start}: expected two numbers")


@dataclass(frozen=True)
class Beale(_OfTwoVariables):
    r"""A flat plateau with sharp peaks at its corners and one minimum.

    Equation:
        ``f(x) = (1.5 - x1 + x1 x2)^2 + (2.25 - x1 + x1 x2^2)^2 + (2.625 - x1 + x1 x2^3)^2``, least at ``(3, 0.5)``
        with ``f = 0``.

    Example:
        >>> Beale().value(torch.tensor([[3.0, 0.5]]))
        tensor([0.])

    Source:
        E. M. L. Beale, "On an iterative method for finding a local minimum of a function of more than one variable",
        Princeton, Statistical Techniques Research Group, report 25 (1958).
    """

    start: Point = (1.0, 1.5)
    minimum: Point = (3.0, 0.5)

    def value(self, x: Tensor) -> Tensor:
        """Return ``f`` of every row."""
        a, b = x[..., 0], x[..., 1]
        terms = (level - a + a * b**power for level, power in ((1.5, 1), (2.25, 2), (2.625, 3)))
        return torch.stack([term.square() for term in terms]).sum(0)


@dataclass(frozen=True)
class Saddle(_OfTwoVariables):
    r"""A saddle at the origin between two minima: without noise a descent from the ridge ends on the saddle.

    Equation:
        ``f(x) = x1^2 - x2^2 + x2^4 / 4``, least at ``(0, sqrt 2)`` and ``(0, -sqrt 2)`` with ``f = -1``. By default a
        descent begins on the ridge ``x2 = 0``.

    Example:
        >>> Saddle().gradient(torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
        tensor([[ 0.,  0.],
                [ 0., -1.]])
    """

    start: Point = (-2.0, 0.0)
    minimum: Point = (0.0, 2.0**0.5)

    def value(self, x: Tensor) -> Tensor:
        """Return ``f`` of every row."""
        a, b = x[..., 0].square(), x[..., 1].square()
        return a - b + b.square() / 4
