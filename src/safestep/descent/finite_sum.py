"""Means of many terms, one a sample: what mini-batches are drawn from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from safestep.descent.objective import DescentError, Objective, Point, bend_of, gradient_of

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
        """Return ``f_i(x)``, shape ``(*runs, b)``.

        Args:
            x: shape ``(*runs, 1, d)``.
            samples: shape ``(*runs, b, k)`` or ``(b, k)``.
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
        return gradient_of(lambda point: self.on(point, samples), x)

    def batch_bend(self, x: Tensor, p: Tensor, samples: Tensor) -> Tensor:
        """Return ``p.H_B p`` at every row, shape ``(*runs,)``."""
        return bend_of(lambda point: self.on(point, samples), x, p)


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
