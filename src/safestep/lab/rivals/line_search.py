"""Stochastic line search: gradient descent whose step is made shorter until the loss of its batch falls enough."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD

from safestep.lab.rivals.stepper import Loss, Stepper


class LineSearch(Stepper):
    """Stochastic gradient descent under the Armijo condition on each batch (SLS).

    The search begins at 2^(1/batches) times the rate before, the first time at that times 1, and at most at 10, and
    shortens by a tenth until f(w - η g) ≤ f(w) - 0.1 η ‖g‖². After 100 in vain the step is 1e-6 g.

    Args:
        parameters: what is trained.
        batches: in an epoch. The authors recommend to give it, and take 500 otherwise.

    Attributes:
        rate: η of the last step.

    Note:
        Every trial is a forward in training mode: a BatchNorm's running statistics see it, as in the authors' code.

    Reference:
        S. Vaswani et al., arXiv 1905.09997 (2019): settings of its experiments; the bound of 10 is from there, and in
        its code for the Goldstein condition alone.
    """

    def __init__(self, parameters: Iterable[Tensor], batches: int = 500) -> None:
        super().__init__(SGD(parameters, lr=1.0))
        self.rate, self._growth = 1.0, 2.0 ** (1 / batches)

    @torch.no_grad()
    def _move(self, value: Any, loss: Loss) -> None:
        moved = [(p, p.clone(), p.grad) for p in self._parameters() if p.grad is not None]
        squared = sum(float(gradient.square().sum()) for _, _, gradient in moved)

        def go(rate: float) -> None:
            for p, start, gradient in moved:
                torch.sub(start, gradient, alpha=rate, out=p)

        if squared < 1e-16:
            return
        self.rate = min(10.0, self.rate * self._growth)
        for _ in range(100):
            go(self.rate)
            if float(loss()) <= float(value) - 0.1 * self.rate * squared:
                return
            self.rate *= 0.9
        go(1e-6)
