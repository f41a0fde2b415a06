"""Mini-batches of a finite sum: with replacement, without, or dealt out epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from safestep.descent.finite_sum import FiniteSum
from safestep.descent.noise import Noise, Oracle
from safestep.descent.objective import DescentError, Objective

Draw = Literal["replacement", "distinct", "epochs"]
_ENTRIES = 2**22
"""How many random keys are sorted at a time, to choose distinct samples."""


@dataclass(frozen=True)
class Batches(Noise):
    r"""Every run draws its own batch of ``b`` of the ``n`` samples at every step.

    Equation:
        The mean gradient of a batch has, for the population covariance ``C`` of the single gradients, the covariance
        ``C / b`` with replacement and ``(C / b) (n - b) / (n - 1)`` without.

    Attributes:
        size: ``b``, at least 1; without replacement at most ``n``.
        draw: ``"replacement"``: ``b`` independent samples, some perhaps twice. ``"distinct"``: ``b`` different ones,
            drawn anew at every step. ``"epochs"``: the samples are shuffled, dealt out batch by batch, and shuffled
            again; what is left over at the end of an epoch (``n`` modulo ``b``) is not used.

    Raises:
        DescentError: at construction, for a size or draw outside the above.

    Example:
        >>> Batches(32, draw="epochs").variance_factor(samples=128)
        0.023622047244094488

    Note:
        Under ``"epochs"`` the batches of one epoch are not independent: what one has, the others lack.
    """

    size: int
    draw: Draw = "replacement"

    def __post_init__(self) -> None:
        """Check the ranges."""
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise DescentError(f"size = {self.size!r}: expected a whole number of at least 1")
        if self.draw not in get_args(Draw):
            raise DescentError(f"draw = {self.draw!r}: expected one of {', '.join(get_args(Draw))}")

    def variance_factor(self, samples: int) -> float:
        """Return by what a batch multiplies the covariance of single gradients; 0 for all samples at once."""
        self.check(samples)
        if self.draw == "replacement":
            return 1.0 / self.size
        return 0.0 if samples == 1 else (samples - self.size) / (self.size * (samples - 1))

    def check(self, samples: int) -> None:
        """Raise DescentError if there are not enough samples."""
        if self.draw != "replacement" and self.size > samples:
            raise DescentError(f"batches of {self.size} of {samples} samples without replacement: expected at most all")

    def oracle(self, objective: Objective, runs: int, generator: torch.Generator) -> Oracle:
        """Return the gradient on a batch."""
        if not isinstance(objective, FiniteSum):
            raise DescentError(
                f"{self} of {type(objective).__name__}: expected a finite sum (Bowls, LeastSquares, Terms), which has "
                "samples to draw from; for noise on another objective take Gaussian()"
            )
        self.check(len(objective.samples))
        return _OnBatch(objective, self, runs, generator)


class _OnBatch(Oracle):
    def __init__(self, objective: FiniteSum, batches: Batches, runs: int, generator: torch.Generator) -> None:
        self._objective, self._batches, self._runs, self._generator = objective, batches, runs, generator
        self._samples = objective.samples
        self._order = torch.empty(runs, 0, dtype=torch.int64)
        self._place = 0
        self._chosen = self._samples[:0]

    def draw(self) -> None:
        self._chosen = self._samples[self._indices()]

    def gradient(self, x: Tensor) -> Tensor:
        return self._objective.batch_gradient(x, self._chosen.to(x.dtype))

    def bend(self, x: Tensor, p: Tensor) -> Tensor:
        return self._objective.batch_bend(x, p, self._chosen.to(x.dtype))

    def _indices(self) -> Tensor:
        n, b = len(self._samples), self._batches.size
        if self._batches.draw == "replacement":
            return torch.randint(n, (self._runs, b), generator=self._generator)
        if self._batches.draw == "distinct":
            return self._shuffled(b)
        if self._place + b > self._order.shape[1]:
            self._order, self._place = self._shuffled(n), 0
        self._place += b
        return self._order[:, self._place - b : self._place]

    def _shuffled(self, count: int) -> Tensor:
        """Return ``count`` different samples for every run, in random order: those of the smallest random keys."""
        n = len(self._samples)
        rows = max(1, _ENTRIES // n)
        pieces = [
            torch.rand(min(rows, self._runs - first), n, generator=self._generator, dtype=torch.float64)
            .topk(count, largest=False)
            .indices
            for first in range(0, self._runs, rows)
        ]
        return torch.cat(pieces)
