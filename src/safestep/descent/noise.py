"""What a step knows of the gradient: all of it, or all of it and Gaussian noise."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from safestep.descent.objective import DescentError, Objective, Point
from safestep.descent.quadratic import Matrix

_BLOCK = 2**19
"""Numbers in a block, of as many whole steps as fit; a large ensemble has blocks of one step."""
_STEPS = 16
"""Steps in a block at most."""
_WORTH = 2**14
"""Blocks of fewer numbers are drawn sooner than another thread wakes."""


@dataclass(frozen=True)
class StepLoss:
    """What one step descends on, in every run: one draw of chance, whatever points it is evaluated at.

    Attributes:
        gradient: at every row, ``(runs, d)`` to ``(runs, d)``; a tensor that nothing else holds.
        bend: from points and steps ``p`` to ``p.Hp`` at every row, shape ``(runs,)``.
    """

    gradient: Callable[[Tensor], Tensor]
    bend: Callable[[Tensor, Tensor], Tensor]


class Noise(ABC):
    """How the gradient of a step is drawn."""

    @abstractmethod
    def losses(self, objective: Objective, runs: int, generator: torch.Generator) -> Iterator[StepLoss]:
        """Return the loss of one step after another, without end.

        Raises:
            DescentError: if this noise does not go with the objective.
        """


@dataclass(frozen=True)
class Silent(Noise):
    """No noise: every step sees the whole gradient."""

    def losses(self, objective: Objective, runs: int, generator: torch.Generator) -> Iterator[StepLoss]:
        """Return the objective itself, at every step."""
        return repeat(StepLoss(lambda x: objective.gradient(x).clone(), objective.bend))


@dataclass(frozen=True)
class Gaussian(Noise):
    r"""Gaussian noise on every gradient, independent from step to step and run to run.

    Equation:
        ``g = grad f(x) + e``, ``e ~ N(0, Sigma / b)`` with ``Sigma = diag(sigma_i^2)`` or any covariance: as if every
        gradient were the mean over a batch of ``b`` samples.

    Attributes:
        scale: ``sigma``, one number or one a variable, in units of the gradient, at least 0.
        covariance: ``Sigma``, symmetric and positive semidefinite, instead of ``scale``.
        batch: ``b``, at least 1.

    Raises:
        DescentError: at construction, for numbers outside the above.

    Example:
        >>> Gaussian(scale=(1.0, 3.0), batch=2).covariance_in(2)
        tensor([[0.5000, 0.0000],
                [0.0000, 4.5000]], dtype=torch.float64)

    Note:
        The numbers are drawn in single precision, which is several times faster, and then have the precision of the
        descent: no draw is more than about 5.8 standard deviations off. As a loss this noise is ``f(x) + e.x``: it
        tilts, and does not bend.
    """

    scale: float | Point = 1.0
    covariance: Matrix | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        scale = torch.as_tensor(self.scale, dtype=torch.float64)
        if scale.dim() > 1 or not (scale.isfinite() & (scale >= 0)).all():
            raise DescentError(f"scale = {self.scale}: expected a standard deviation of at least 0, or one a variable")
        object.__setattr__(self, "scale", tuple(scale.tolist()) if scale.dim() else float(scale))
        if isinstance(self.batch, bool) or not isinstance(self.batch, int) or self.batch < 1:
            raise DescentError(f"batch = {self.batch!r}: expected a whole number of at least 1")
        if self.covariance is not None:
            if self.scale != 1.0:
                raise DescentError(f"scale = {self.scale} and a covariance: expected one of them")
            sigma = torch.as_tensor(self.covariance, dtype=torch.float64)
            if sigma.dim() != 2 or sigma.shape[0] != sigma.shape[1] or not sigma.isfinite().all():
                raise DescentError(f"covariance of shape {tuple(sigma.shape)}: expected a finite d by d matrix")
            lowest = torch.linalg.eigvalsh(sigma)[0].item() if torch.equal(sigma, sigma.T) else -math.inf
            if lowest < -1e-12 * sigma.abs().max().item():
                raise DescentError(f"covariance = {sigma.tolist()}: expected a symmetric positive semidefinite matrix")
            object.__setattr__(self, "covariance", tuple(map(tuple, sigma.tolist())))

    def covariance_in(self, d: int) -> Tensor:
        """Return ``Sigma / b`` in ``d`` variables, shape ``(d, d)``, in float64.

        Raises:
            DescentError: if scale or covariance is of another number of variables.
        """
        if self.covariance is not None:
            sigma = torch.tensor(self.covariance, dtype=torch.float64)
        else:
            scale = torch.as_tensor(self.scale, dtype=torch.float64)
            sigma = (scale.expand(d) if scale.dim() == 0 else scale).square().diag()
        if sigma.shape != (d, d):
            raise DescentError(f"{self} in {d} variables: expected one scale, or {d}, or a {d} by {d} covariance")
        return sigma / self.batch

    def losses(self, objective: Objective, runs: int, generator: torch.Generator) -> Iterator[StepLoss]:
        """Return the objective with noise on its gradient."""
        covariance = self.covariance_in(objective.dimension)
        if torch.equal(covariance, covariance.diagonal().diag()):
            factor = covariance.diagonal().sqrt()
        else:  # a symmetric root exists for semidefinite matrices, too
            values, vectors = torch.linalg.eigh(covariance)
            factor = vectors @ values.clamp(min=0).sqrt().diag() @ vectors.T

        def loss_with(numbers: Tensor) -> StepLoss:
            def gradient(x: Tensor) -> Tensor:
                exact, noise, root = objective.gradient(x), numbers.to(x.dtype), factor.to(x.dtype)
                return torch.addcmul(exact, noise, root) if root.dim() == 1 else exact + noise @ root

            return StepLoss(gradient, objective.bend)

        return map(loss_with, standard_normals(runs, objective.dimension, generator))


def standard_normals(runs: int, d: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the numbers of one step after another, shape ``(runs, d)``, in single precision; good until the next.

    Drawing takes as long as the rest of a step, and torch draws with one core only: beside the steps it takes the
    other. The numbers do not depend on that, they come from one generator in order.

    Example:
        >>> numbers = standard_normals(5, 2, torch.Generator().manual_seed(0))
        >>> next(numbers).shape, torch.equal(next(numbers), next(numbers))
        (torch.Size([5, 2]), False)
    """
    steps = max(1, min(_STEPS, _BLOCK // (runs * d)))
    now, soon = (torch.empty(steps, d, runs, dtype=torch.float32, device="cpu") for _ in range(2))
    if now.numel() < _WORTH:
        while True:
            for step in now.normal_(generator=generator):
                yield step.t()
    with ThreadPoolExecutor(1, "noise") as thread:
        drawing = thread.submit(soon.normal_, generator=generator)
        while True:
            drawing.result()
            now, soon = soon, now
            drawing = thread.submit(soon.normal_, generator=generator)
            for step in now:
                yield step.t()
