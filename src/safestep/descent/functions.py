"""Functions that are no quadratics: a bent valley, a plateau with one minimum, a saddle."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from safestep.descent.objective import DescentError, Objective, Point


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
class Beale(Objective):
    r"""A flat plateau with sharp peaks at its corners and one minimum.

    Equation:
        ``f(x) = (1.5 - x1 + x1 x2)^2 + (2.25 - x1 + x1 x2^2)^2 + (2.625 - x1 + x1 x2^3)^2``, least at ``(3, 0.5)``
        with ``f = 0``.

    Attributes:
        start: where a descent begins.
        minimum: ``(3, 0.5)``.

    Example:
        >>> Beale().value(torch.tensor([[3.0, 0.5]]))
        tensor([0.])

    Source:
        E. M. L. Beale, "On an iterative method for finding a local minimum of a function of more than one variable",
        Princeton, Statistical Techniques Research Group, report 25 (1958).
    """

    start: Point = (1.0, 1.5)
    minimum: Point = (3.0, 0.5)

    def __post_init__(self) -> None:
        """Check the number of variables."""
        _require_two(self.start)

    def value(self, x: Tensor) -> Tensor:
        """Return ``f`` of every row."""
        a, b = x[..., 0], x[..., 1]
        terms = (level - a + a * b**power for level, power in ((1.5, 1), (2.25, 2), (2.625, 3)))
        return torch.stack([term.square() for term in terms]).sum(0)


@dataclass(frozen=True)
class Saddle(Objective):
    r"""A saddle at the origin between two minima: without noise a descent from the ridge ends on the saddle.

    Equation:
        ``f(x) = x1^2 - x2^2 + x2^4 / 4``, least at ``(0, sqrt 2)`` and ``(0, -sqrt 2)`` with ``f = -1``.

    Attributes:
        start: where a descent begins; by default on the ridge ``x2 = 0``.
        minimum: one of the two.

    Example:
        >>> Saddle().gradient(torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
        tensor([[ 0.,  0.],
                [ 0., -1.]])
    """

    start: Point = (-2.0, 0.0)
    minimum: Point = (0.0, 2.0**0.5)

    def __post_init__(self) -> None:
        """Check the number of variables."""
        _require_two(self.start)

    def value(self, x: Tensor) -> Tensor:
        """Return ``f`` of every row."""
        a, b = x[..., 0].square(), x[..., 1].square()
        return a - b + b.square() / 4


def _require_two(start: Point) -> None:
    if len(start) != 2:
        raise DescentError(f"start = {start}: expected two numbers")
