"""Every optimizer class that torch.optim exports, how to build it for a model, and what cannot be."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer, SparseAdam

from zoo.cases import Case


def everything(model: nn.Module) -> list[list[nn.Parameter]]:
    return [list(model.parameters()), []]


def matrices(model: nn.Module) -> list[list[nn.Parameter]]:
    parameters = list(model.parameters())
    return [[p for p in parameters if p.ndim == 2], [p for p in parameters if p.ndim != 2]]


def sparse_tables(model: nn.Module) -> list[list[nn.Parameter]]:
    tables = [m.weight for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) and m.sparse]
    return [tables, [p for p in model.parameters() if not any(p is table for table in tables)]]


@dataclass(frozen=True, eq=False)  # each is itself: options are a dict, and have no hash
class Recipe:
    """How to train with an optimizer.

    Attributes:
        cls: the class.
        lr: a learning rate with small steps.
        big: one with steps far outside the radius.
        options: further arguments.
        share: divides the parameters: those for this optimizer, and those that plain SGD has to take.
        closure: whether ``step`` needs a closure.
    """

    name: str
    cls: type[Optimizer]
    lr: float
    big: float
    options: Mapping[str, Any] = field(default_factory=dict)
    share: Callable[[nn.Module], list[list[nn.Parameter]]] = everything
    closure: bool = False

    def build(self, model: nn.Module, *, big: bool = False) -> list[Optimizer]:
        lr = self.big if big else self.lr
        own, rest = self.share(model)
        optimizers: list[Optimizer] = [self.cls(own, lr=lr, **self.options)] if own else []
        return [*optimizers, SGD(rest, lr=lr)] if rest else optimizers

    def cannot_train(self, case: Case) -> str:
        """Return why torch cannot train a model with this optimizer; an empty text if it can."""
        if case.sparse and self.name not in TAKES_SPARSE_GRADIENTS:
            return f"{self.cls.__name__} does not take sparse gradients"
        if self.cls is SparseAdam and not case.sparse:
            return "SparseAdam takes sparse gradients only"
        return ""

    def __str__(self) -> str:
        return self.name


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("ASGD", torch.optim.ASGD, 0.1, 100.0),
        Recipe("Adadelta", torch.optim.Adadelta, 1.0, 1e5),
        Recipe("Adafactor", torch.optim.Adafactor, 0.01, 100.0),
        Recipe("Adagrad", torch.optim.Adagrad, 0.01, 10.0),
        Recipe("Adam", torch.optim.Adam, 0.01, 10.0),
        Recipe("AdamW", torch.optim.AdamW, 0.01, 10.0),
        Recipe("Adamax", torch.optim.Adamax, 0.01, 10.0),
        Recipe("LBFGS", torch.optim.LBFGS, 0.1, 10.0, {"max_iter": 3}, closure=True),
        *([Recipe("Muon", torch.optim.Muon, 0.01, 10.0, share=matrices)] if hasattr(torch.optim, "Muon") else []),
        Recipe("NAdam", torch.optim.NAdam, 0.01, 10.0),
        Recipe("RAdam", torch.optim.RAdam, 0.01, 100.0),
        Recipe("RMSprop", torch.optim.RMSprop, 0.01, 10.0),
        Recipe("Rprop", torch.optim.Rprop, 0.01, 10.0),
        Recipe("SGD", SGD, 0.1, 100.0),
        Recipe("SparseAdam", SparseAdam, 0.01, 10.0, share=sparse_tables),
    )
}
"""One recipe for every optimizer class of torch.optim."""

VARIANTS = {
    recipe.name: recipe
    for recipe in (
        Recipe("SGD-momentum", SGD, 0.1, 100.0, {"momentum": 0.9}),
        Recipe("SGD-nesterov-decay", SGD, 0.1, 100.0, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        Recipe("SGD-fused", SGD, 0.1, 100.0, {"momentum": 0.9, "fused": True}),
        Recipe("SGD-maximize", SGD, 0.1, 100.0, {"maximize": True}),
        Recipe("Adam-amsgrad", torch.optim.Adam, 0.01, 10.0, {"amsgrad": True}),
        Recipe("Adam-foreach", torch.optim.Adam, 0.01, 10.0, {"foreach": True}),
        Recipe("Adam-fused", torch.optim.Adam, 0.01, 10.0, {"fused": True}),
        Recipe("RMSprop-centered", torch.optim.RMSprop, 0.01, 10.0, {"momentum": 0.9, "centered": True}),
        Recipe(
            "LBFGS-wolfe", torch.optim.LBFGS, 1.0, 10.0, {"max_iter": 3, "line_search_fn": "strong_wolfe"}, closure=True
        ),
    )
}
"""Other implementations and options of the same classes."""

ALL = RECIPES | VARIANTS

CANNOT_BE_BUILT = {"Optimizer": "the abstract base class; its step raises NotImplementedError"}
"""Exported classes without a recipe."""

TAKES_SPARSE_GRADIENTS = {"SparseAdam", "SGD", "SGD-momentum", "SGD-maximize", "Adagrad", "LBFGS", "LBFGS-wolfe"}
"""All others raise on a model with a sparse embedding table, and SparseAdam on one without."""

NOT_SCALED = {"LBFGS": "searches its own step length: watched, never scaled"}
"""Classes whose steps a guard measures and leaves alone."""


def recipes_for(case: Case) -> list[Recipe]:
    """Return the recipes that can train a model."""
    return [recipe for recipe in ALL.values() if not recipe.cannot_train(case)]


def exported() -> set[str]:
    """Return the names of every optimizer class in torch.optim, by introspection."""
    found = inspect.getmembers(torch.optim, lambda value: inspect.isclass(value) and issubclass(value, Optimizer))
    return {name for name, _ in found}
