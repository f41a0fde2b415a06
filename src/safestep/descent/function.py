"""The user's own function, with a gradient by torch or of his own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from safestep.descent.objective import Objective, Point


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
