"""Curvature dynamics aware tuning (CDAT): Adam's direction, as long as the edge of stability along it allows."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from safestep.lab.rivals.stepper import Loss, Stepper


class OnEdge(Stepper):
    """Steps along what an optimizer proposes, at the rate σ (-g·u)₊ / (abs(uᵀHu) + ε) with σ = 2: on the edge.

    At σ = 1 the rate minimises the quadratic model of the loss along u; at 2 that model neither falls nor rises.
    Numerator and denominator are moving averages over batches, which the paper finds to help in small ones.

    Args:
        base: proposes u, at rate 1.
        sigma: 2 is the paper's "on edge", 1 its "greedy".
        kept: of the moving averages; 0: none, as for its full batches.

    Attributes:
        rate: of the last step.

    Note:
        The paper tunes σ to the batch size; here it stays. Its ``kept`` and ε could not be looked up: 0.9 and 1e-8
        are ours. The loss is evaluated again for H u, which could be had with the gradient.

    Reference:
        V. Roulet et al., arXiv 2407.06183 (2024).
    """

    def __init__(self, base: Optimizer, sigma: float = 2.0, kept: float = 0.9) -> None:
        super().__init__(base)
        self.rate, self._sigma, self._kept = 0.0, sigma, kept
        self._fall = self._bend = 0.0

    def _move(self, value: Any, loss: Loss) -> None:
        parameters, steps = self._parameters(), self._proposal()
        # the fast kernels of attention have one derivative
        with sdpa_kernel(SDPBackend.MATH):
            gradients = torch.autograd.grad(loss(), parameters, create_graph=True, materialize_grads=True)
        slope = torch.stack([(g * u).sum() for g, u in zip(gradients, steps, strict=True)]).sum()
        # a loss that is linear in the parameters has gradients without a graph
        curved = torch.autograd.grad(slope, parameters, materialize_grads=True) if slope.requires_grad else ()
        curvature = sum(float((h * u).sum()) for h, u in zip(curved, steps, strict=bool(curved)))
        self._fall = self._kept * self._fall + (1 - self._kept) * max(-slope.item(), 0.0)
        self._bend = self._kept * self._bend + (1 - self._kept) * (abs(curvature) + 1e-8)
        self.rate = self._sigma * self._fall / self._bend
        with torch.no_grad():
            for p, u in zip(parameters, steps, strict=True):
                p.add_(u, alpha=self.rate)
