"""Mini-batches of a finite sum: with replacement, without, or dealt out epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from safestep.descent.finite_sum import FiniteSum
from safestep.descent.noise import Noise, StepLoss
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
        """Return by what a batch multiplies the covariance of single gradients; 0 for all samples at once.

        Raises:
            DescentError: if there are not enough samples.
        """
        if self.draw == "replacement":
            return 1.0 / self.size
        if self.size > samples:
            raise DescentError(f"batches of {self.size} of {samples} samples without replacement: expected at most all")
        return 0.0 if samples == 1 else (samples - self.size) / (self.size * (samples - 1))

    def losses(self, objective: Objective, runs: int, generator: torch.Generator) -> Iterator[StepLoss]:
        """Return the mean over one batch after another."""
        if not isinstance(objective, FiniteSum):
            raise DescentError(
                f"{self} of {type(objective).__name__}: expected a finite sum (Bowls, LeastSquares, Terms), which has "
                "samples to draw from; for noise on another objective take Gaussian()"
            )
        samples = objective.samples
        self.variance_factor(len(samples))  # are there enough?

        def loss_on(chosen: Tensor) -> StepLoss:
            batch = samples[chosen]
            return StepLoss(
                lambda x: objective.batch_gradient(x, batch.to(x.dtype)),
                lambda x, p: objective.batch_bend(x, p, batch.to(x.dtype)),
            )

        return map(loss_on, self.indices(len(samples), runs, generator))

    def indices(self, samples: int, runs: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield which of so many samples each run has in one step after another, shape ``(runs, b)``."""
        while True:
            if self.draw == "replacement":
                yield torch.randint(samples, (runs, self.size), generator=generator)
            elif self.draw == "distinct":
                yield _distinct(self.size, samples, runs, generator)
            else:
                order = _distinct(samples, samples, runs, generator)
                yield from order[:, : samples // self.size * self.size].split(self.size, dim=1)


def _distinct(count: int, samples: int, runs: int, generator: torch.Generator) -> Tensor:
    """Return ``count`` different samples for every run, in random order: those of the smallest random keys."""
    rows = max(1, _ENTRIES // samples)
    pieces = [
        torch.rand(min(rows, runs - first), samples, generator=generator, dtype=torch.float64)
        .topk(count, largest=False)
        .indices
        for first in range(0, runs, rows)
    ]
    return torch.cat(pieces)
