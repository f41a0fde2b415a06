"""Mechanic: scales the sum of all that an optimizer proposed, by what earlier scales would have won."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from safestep.lab.rivals.stepper import Loss, Stepper


class Mechanic(Stepper):
    """Holds the model at w₀ + s Δ, where Δ sums the steps that an optimizer proposed at rate 1, and s is tuned.

    Args:
        base: proposes steps; its rate may follow a schedule, times 1.
        decay: of s, by gradients that point back to 0.
        first: s at the start.
        eps: keeps quotients finite.

    Reference:
        A. Cutkosky et al., arXiv 2306.00144 (2023), with the clipped product and the settings of
        ``optax.contrib.mechanize``, its authors' code. Δ is stored, where that takes it from the weights.
    """

    def __init__(self, base: Optimizer, decay: float = 0.01, first: float = 1e-6, eps: float = 1e-8) -> None:
        super().__init__(base)
        self._decay, self._first, self._eps = decay, first, eps
        self._betas = 1 - 0.1 ** torch.arange(1, 7, dtype=torch.float64)
        self._largest, self._squares, self._reward = (torch.zeros_like(self._betas) for _ in range(3))
        self._scales = torch.full_like(self._betas, first)
        self._start = [p.detach().clone() for p in self._parameters()]
        self._sum = [torch.zeros_like(p) for p in self._start]

    @torch.no_grad()
    def _move(self, value: Any, loss: Loss) -> None:
        parameters, scale = self._parameters(), float(self._scales.sum())
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
        length, size = (sum(float(t.square().sum()) for t in ts) ** 0.5 for ts in (gradients, parameters))
        back = self._decay * scale * length / (size + self._eps)
        won = -sum(float(((g + back * p) * d).sum()) for g, p, d in zip(gradients, parameters, self._sum, strict=True))
        for total, step in zip(self._sum, self._proposal(), strict=True):
            total.add_(step)
        clipped = torch.clamp(torch.full_like(self._largest, won), -self._largest, self._largest)
        self._largest = torch.clamp(self._betas * self._largest, min=abs(won) + self._eps)
        self._squares = self._betas**2 * self._squares + won**2
        self._reward = self._betas * self._reward + clipped * self._scales
        wealth = self._first / len(self._betas) * self._largest + self._reward.clamp(min=0.0)
        self._scales = wealth / (self._squares.sqrt() + self._eps)
        for p, start, total in zip(parameters, self._start, self._sum, strict=True):
            p.copy_(start + float(self._scales.sum()) * total)
