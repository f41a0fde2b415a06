"""A linear regression: a finite sum whose batches differ in their curvature, too."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from safestep.descent.objective import DescentError, Point
from safestep.descent.quadratic_sum import QuadraticSum


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
