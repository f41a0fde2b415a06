"""A training that can be repeated bit for bit, and everything that a guard might disturb in it."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import safestep
from zoo.cases import ZOO, Case
from zoo.optimizers import ALL, Recipe

Generators = tuple[Tensor, Any, Any]

METHODS = pytest.mark.parametrize("method", ["tiered", "exact"])
"""The default method of the softmax radius, and the one whose readings are exact: for what must hold either way."""
RADII = pytest.mark.parametrize("method", ["tiered", "exact", "curvature"])
"""The same, and the curvature radius."""


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def generators() -> Generators:
    return torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)


def set_generators(states: Generators) -> None:
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])


def said(pattern: str) -> contextlib.AbstractContextManager[Any]:
    """Expect a SafestepWarning that matches; no pattern, no expectation (any warning is then an error)."""
    return pytest.warns(safestep.SafestepWarning, match=pattern) if pattern else contextlib.nullcontext()


class Training:
    """A model of the zoo, its optimizers and its batches.

    Args:
        case: the model.
        recipe: the optimizers.
        dtype: of the parameters and floating-point inputs.
        seed: of every generator. Two trainings of one seed are the same training.
        big: whether to take the recipe's big learning rate.
    """

    def __init__(
        self, case: Case, recipe: Recipe, *, dtype: torch.dtype = torch.float32, seed: int = 0, big: bool = False
    ) -> None:
        seed_everything(seed)
        self.case, self.recipe, self.dtype = case, recipe, dtype
        self.model: nn.Module = case.build().to(dtype)
        self.optimizers: list[Optimizer] = recipe.build(self.model, big=big)
        self.index = 0

    def attach(self, *, method: str | None = None, **options: Any) -> safestep.Guard:
        """Guard the training, on request with one of `RADII`."""
        if method == "curvature":
            options["radius"] = safestep.CurvatureRadius()
        elif method is not None:
            options["radius"] = safestep.SoftmaxRadius(method=method)
        return safestep.attach(self.model, self.optimizers, **options)

    def backward(self) -> Tensor:
        """Zero the gradients, run the present batch forward and backward."""
        batch = self.case.batch(self.index, self.dtype)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss = self.case.loss(self.model(*batch.args, **batch.kwargs), batch.labels)
        loss.backward()
        return loss.detach()

    def step(self, between: Callable[[Training], object] = lambda training: None) -> None:
        """Take one step on the present batch; ``between`` runs after backward and before the step."""

        def closure() -> Tensor:
            loss = self.backward()
            between(self)
            return loss

        if not self.recipe.closure:
            closure()
        for optimizer in self.optimizers:
            optimizer.step(*([closure] if self.recipe.closure else []))
        self.index += 1

    def steps(self, count: int) -> Training:
        for _ in range(count):
            self.step()
        return self

    def parameters(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def everything(self) -> dict[str, Any]:
        """Return copies of all that must be bit for bit the same with a guard as without."""
        model, names = self.model, {p: name for name, p in self.model.named_parameters()}
        return {
            "parameters": self.parameters(),
            "writes": {name: p._version for name, p in model.named_parameters()},
            "buffers": {name: buffer.clone() for name, buffer in model.named_buffers()},
            "gradients": {name: _copy(p.grad) for name, p in model.named_parameters()},
            "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
            "attributes": {name: _public(module) for name, module in model.named_modules()},
            "states": [{names[p]: _copy(s) for p, s in optimizer.state.items()} for optimizer in self.optimizers],
            "groups": [
                {key: _copy(value) for key, value in group.items() if key != "params"}
                for optimizer in self.optimizers
                for group in optimizer.param_groups
            ],
            "generators": generators(),
        }


def _public(module: nn.Module) -> dict[str, Any]:
    """Flags, counters and cached tensors that a module keeps on itself."""
    plain = (bool, int, float, str, Tensor, type(None))
    return {
        key: _copy(value) for key, value in vars(module).items() if not key.startswith("_") and isinstance(value, plain)
    }


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copy(item) for item in value]
    return value


@contextlib.contextmanager
def gradients_stay(model: nn.Module) -> Iterator[None]:
    """Assert that every ``.grad`` is the same object after the block as before."""
    before = [(p, p.grad) for p in model.parameters()]
    yield
    assert all(p.grad is gradient for p, gradient in before), "a guard exchanged a .grad tensor"


def pair(recipe: str = "SGD-momentum", case: str = "mlp", **options: Any) -> tuple[Training, Training]:
    """Return two trainings of one seed: one to leave alone, one to guard."""
    return Training(ZOO[case], ALL[recipe], **options), Training(ZOO[case], ALL[recipe], **options)


def poison(training: Training, bad: float = math.nan) -> None:
    """Put a number that is not finite into one gradient of every optimizer."""
    for optimizer in training.optimizers:
        gradient = next(p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
        (gradient._values() if gradient.is_sparse else gradient).view(-1)[0] = bad
