"""What a step knows of the gradient: all of it, or all of it and Gaussian noise."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from safestep.descent.objective import DescentError, Objective, Point
from safestep.descent.prefetch import Ahead
from safestep.descent.quadratic import Matrix


class Oracle(ABC):
    """What the steps of an ensemble ask for gradients; one draw of chance serves a whole step."""

    @abstractmethod
    def draw(self) -> None:
        """Draw the chance of the next step, for every run."""

    @abstractmethod
    def gradient(self, x: Tensor) -> Tensor:
        """Return this step's gradient at every row, shape ``(runs, d)``: a tensor that nothing else holds."""

    @abstractmethod
    def bend(self, x: Tensor, p: Tensor) -> Tensor:
        """Return ``p.Hp`` of this step's loss at every row, shape ``(runs,)``."""


class Noise(ABC):
    """How the gradient of a step is drawn."""

    @abstractmethod
    def oracle(self, objective: Objective, runs: int, generator: torch.Generator) -> Oracle:
        """Return what the steps of ``runs`` runs ask.

        Raises:
            DescentError: if this noise does not go with the objective.
        """


@dataclass(frozen=True)
class Silent(Noise):
    """No noise: every step sees the whole gradient."""

    def oracle(self, objective: Objective, runs: int, generator: torch.Generator) -> Oracle:
        """Return the exact gradient."""
        return _Exact(objective)


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

    def oracle(self, objective: Objective, runs: int, generator: torch.Generator) -> Oracle:
        """Return the exact gradient with noise on it."""
        return _Shaken(objective, self.covariance_in(objective.dimension), runs, generator)


class _Exact(Oracle):
    def __init__(self, objective: Objective) -> None:
        self._objective = objective

    def draw(self) -> None:
        """Nothing is left to chance."""

    def gradient(self, x: Tensor) -> Tensor:
        return self._objective.gradient(x).clone()

    def bend(self, x: Tensor, p: Tensor) -> Tensor:
        return self._objective.bend(x, p)


class _Shaken(_Exact):
    def __init__(self, objective: Objective, covariance: Tensor, runs: int, generator: torch.Generator) -> None:
        super().__init__(objective)
        self._ahead = Ahead((runs, objective.dimension), generator)
        self._drawn = torch.empty(0)
        diagonal = torch.equal(covariance, covariance.diagonal().diag())
        if diagonal:
            self._factor = covariance.diagonal().sqrt()
        else:  # a symmetric root exists for semidefinite matrices, too
            values, vectors = torch.linalg.eigh(covariance)
            self._factor = vectors @ values.clamp(min=0).sqrt().diag() @ vectors.T

    def draw(self) -> None:
        self._drawn = self._ahead.next()

    def gradient(self, x: Tensor) -> Tensor:
        gradient, noise, factor = self._objective.gradient(x), self._drawn.to(x.dtype), self._factor.to(x.dtype)
        return torch.addcmul(gradient, noise, factor) if factor.dim() == 1 else gradient + noise @ factor
