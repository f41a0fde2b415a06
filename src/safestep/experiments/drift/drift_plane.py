"""Gradient descent on a whole plane of learning rates and drift gains at once: every cell is an entry of a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from safestep.formulas import throttle_laws
from safestep.lab.affine_teacher import AffineTeacher
from safestep.policy import Throttle
from safestep.policy.throttle import Order
from safestep.radius.radius import State

NONE, CURVATURE = "none", "curvature"
SECANT: Mapping[str, Order] = {"secant-0": 0, "secant-1": 1, "secant-2": 2}
"""The published laws, by their order."""
LAWS = (NONE, *SECANT, CURVATURE)
_BETA = 0.05
"""Share of the newest secant curvature in its running mean, as published."""


@dataclass(frozen=True)
class Protocol:
    """What every cell has in common.

    Attributes:
        chi: the aim of the throttle, in (0, 2).
        steps: to take, of full batches.
        limit: a loss above it has diverged, and the run stops there.
    """

    chi: float
    steps: int
    limit: float


@dataclass(frozen=True)
class Plane:
    """What became of every cell, as tensors of shape ``(gains, rates)``.

    Attributes:
        diverged: whether a loss was above the limit or not finite.
        first_loss: of the drifted data, before any step.
        peak_loss: the largest.
        final_loss: the last; of a run that diverged, the one it stopped at.
        steps: taken until it ended or diverged.
    """

    diverged: Tensor
    first_loss: Tensor
    peak_loss: Tensor
    final_loss: Tensor
    steps: Tensor


def simulate(
    teacher: AffineTeacher, start: Tensor, rates: Tensor, gains: Tensor, law: str, protocol: Protocol
) -> Plane:
    r"""Train a linear student with full batches at every learning rate on inputs drifted by every gain.

    Equation:
        With ``E = W - A / gamma`` the gradient is ``g = gamma^2 E S`` and the loss ``gamma^2 tr(E S E') / 2``,
        ``S = X'X / N``; a step is ``E <- E - alpha eta g``. Nothing cancels, however small the loss becomes.

    Args:
        teacher: undrifted.
        start: the weights of the student, shape ``(outputs, inputs)``.
        rates: learning rates, shape ``(n,)``.
        gains: shape ``(m,)``.
        law: of `LAWS`.
        protocol: aim of the throttle, steps, and the loss that ends a run.

    Returns:
        What became of each of the ``m n`` runs, computed in float64.
    """
    squared = gains.double()[:, None, None, None].square()
    error = start.double() - teacher.reference / gains.double()[:, None, None, None]
    error = error.expand(len(gains), len(rates), *start.shape)
    control = _Control(law, protocol.chi, rates.double().expand(len(gains), -1))
    first = last = _loss(error, squared, teacher.moments)
    peak, alive = first, first <= protocol.limit
    taken = torch.zeros_like(first, dtype=torch.int64)
    for _ in range(protocol.steps):
        gradient = squared * error @ teacher.moments
        step = control.step(gradient, squared * gradient @ teacher.moments)
        error = torch.where(alive[..., None, None], error + step, error)
        last = torch.where(alive, _loss(error, squared, teacher.moments), last)
        taken += alive
        peak, alive = torch.fmax(peak, last), alive & (last <= protocol.limit)  # nan compares false
    return Plane(~alive, first, peak, last, taken)


def _loss(error: Tensor, squared: Tensor, moments: Tensor) -> Tensor:
    return (squared * error @ moments * error).sum((-2, -1)) / 2


class _Control:
    """The law, and what it remembers of every cell."""

    def __init__(self, law: str, chi: float, rates: Tensor) -> None:
        self.law, self.rates = law, rates
        self.policy = Throttle(chi=chi, order=SECANT.get(law, 0))
        self.state: State = None
        self.curvature = self.mean = torch.zeros_like(rates)
        self.before: tuple[Tensor, Tensor] | None = None

    def step(self, gradient: Tensor, bent: Tensor) -> Tensor:
        """Return the applied step of every cell, given ``g`` and ``H g``."""
        alpha = torch.ones_like(self.rates)
        if self.law != NONE:
            margin = self._along(gradient, bent) if self.law == CURVATURE else self._secant(gradient)
            lengths, target = self.rates * _norm(gradient), self.policy.target_at(0)
            alpha, self.state = self.policy.scale(margin / 2.0, lengths, target, self.state)
        step = -(alpha * self.rates)[..., None, None] * gradient
        self.before = gradient, step
        return step

    def _along(self, gradient: Tensor, bent: Tensor) -> Tensor:
        """Return ``2 r = eta g.Hg / g.g``; 0 where there is no gradient."""
        slope = gradient.square().sum((-2, -1))
        return torch.where(slope > 0, self.rates * (gradient * bent).sum((-2, -1)) / slope, 0.0)

    def _secant(self, gradient: Tensor) -> Tensor:
        """Return ``eta C``; 0 at the first step, which has nothing to compare with."""
        if self.before is None:
            return torch.zeros_like(self.rates)
        earlier, step = self.before
        moved = _norm(step)
        curvature = torch.as_tensor(throttle_laws.secant_curvature(_norm(gradient - earlier), moved))
        self.curvature = torch.where(moved > 0, curvature, self.curvature)
        self.mean = torch.as_tensor(throttle_laws.running_mean(self.mean, self.curvature, _BETA))
        return self.rates * torch.maximum(self.curvature, self.mean)


def _norm(matrices: Tensor) -> Tensor:
    return matrices.square().sum((-2, -1)).sqrt()
