"""Steppers take one training step a call, whatever their optimizer wants to know: the loss, or many of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

Loss = Callable[[], Tensor]
"""Evaluates the loss of the current batch at the present weights, with its graph; the same each time it is called."""


class Stepper:
    """Takes one training step a call: zeroes gradients, runs backward, steps.

    Args:
        optimizers: what steps; their ``param_groups`` have the rate, for those who schedule it.
        before: runs between backward and step, to clip gradients.
        tells: whether the optimizers are told the loss, by a closure. Only those that go by it are to be: a guard
            takes a closure for one that computes gradients within the step, and then learns nothing of fresh ones.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor(1.0))
        >>> stepper = Stepper(torch.optim.SGD([weight], lr=0.25))
        >>> stepper.step(lambda: weight**2), weight.item()
        (1.0, 0.5)
    """

    def __init__(self, *optimizers: Optimizer, before: Callable[[], None] | None = None, tells: bool = False) -> None:
        self.optimizers, self._before, self._tells = optimizers, before, tells

    def step(self, loss: Loss) -> float:
        """Take one step.

        Args:
            loss: of the batch to learn from.

        Returns:
            The loss before the step. Where it is nan or infinite, nothing is stepped.
        """
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        value = loss()
        number = value.item()
        if math.isfinite(number):
            self._backward(value)
            if self._before is not None:
                self._before()
            self._move(value.detach(), loss)
        return number

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Let the model hold the weights that are to be evaluated: here those it is trained at."""
        yield

    def _backward(self, value: Tensor) -> None:
        torch.autograd.backward(value)

    def _move(self, value: Any, loss: Loss) -> None:
        for optimizer in self.optimizers:
            optimizer.step(*[lambda: value] * self._tells)

    def _parameters(self) -> list[Tensor]:
        return [p for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]]

    @torch.no_grad()
    def _proposal(self) -> list[Tensor]:
        """Let the optimizers step, take it back, and return the step."""
        before = [p.clone() for p in self._parameters()]
        for optimizer in self.optimizers:
            optimizer.step()
        steps = [p - old for p, old in zip(self._parameters(), before, strict=True)]
        for p, old in zip(self._parameters(), before, strict=True):
            p.copy_(old)
        return steps


class AveragedStepper(Stepper):
    """A stepper whose optimizers are to be put into ``train()`` and, for evaluation, ``eval()``."""

    def __init__(self, *optimizers: Optimizer, before: Callable[[], None] | None = None, tells: bool = False) -> None:
        super().__init__(*optimizers, before=before, tells=tells)
        self._mode("train")

    def _mode(self, name: str) -> None:
        for optimizer in self.optimizers:
            getattr(optimizer, name)()

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Let the model hold the averaged weights, and give it back those it is trained at bit for bit."""
        # the optimizers compute one from the other, with rounding: a look would change the run
        kept = [p.detach().clone() for p in self._parameters()]
        self._mode("eval")
        try:
            yield
        finally:
            self._mode("train")
            for p, old in zip(self._parameters(), kept, strict=True):
                p.detach().copy_(old)
