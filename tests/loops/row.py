"""A row of the table "What works with what": a training loop with something wrapped around model or step."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

import safestep
from safestep import CurvatureRadius, SoftmaxRadius
from zoo import ZOO, Case, Recipe, Scene, Training, twin_curvature, twin_ratio
from zoo.training import _copy

METHODS = ("exact", "probe", "tiered", "curvature")
"""The methods of the softmax radius, and the curvature radius: a column each."""

FAR = Recipe("SGD", SGD, 0.1, 100.0)
"""Plain steps far outside the radius."""

IMPLEMENTATIONS = {
    recipe.name: recipe
    for recipe in (
        Recipe("SGD for-loop", SGD, 0.1, 100.0, {"momentum": 0.9, "foreach": False}),
        Recipe("SGD foreach", SGD, 0.1, 100.0, {"momentum": 0.9, "foreach": True}),
        Recipe("SGD fused", SGD, 0.1, 100.0, {"momentum": 0.9, "fused": True}),
        Recipe("AdamW for-loop", AdamW, 0.01, 10.0, {"foreach": False}),
        Recipe("AdamW foreach", AdamW, 0.01, 10.0, {"foreach": True}),
        Recipe("AdamW fused", AdamW, 0.01, 10.0, {"fused": True}),
    )
}
"""What torch does inside a step, three ways, with a little state and with more."""

ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.01}
"""How far r by the exact method may lie from that of the same model in float64, in a chain of a few products: about a
dozen roundings of 2^-8 and 2^-11."""

PROBED = {torch.float32: 0.05, torch.bfloat16: 0.1, torch.float16: 0.05}
"""The same for r by a probe, which also divides rounded logits by the short way between them."""


Truth = Callable[["Loop", Scene, dict[str, Tensor], str], float]
"""From a loop before a step, what that was made of, what the step did to the parameters, and the method, to the r."""


class Loop(Training):
    """A training of a row.

    Attributes:
        row: what is wrapped around it.
        called: what the loop calls in place of the model.
        more: whatever else the row keeps: a scaler, an average. It, too, must be bit for bit the same.
        tools: compiled functions.
    """

    def __init__(self, row: Row, recipe: Recipe, *, big: bool = False) -> None:
        with quiet():
            super().__init__(row.case, recipe, big=big)
        self.row, self.more, self.big = row, dict[str, Any](), big
        self.tools: dict[str, Callable[..., Any]] = {}
        self.called: Callable[..., Any] = self.model
        self.attached: nn.Module = self.model
        with quiet():
            row.prepare(self)

    def attach(self, *, method: str | None = None, **options: Any) -> safestep.Guard:
        if method is not None:
            options["radius"] = CurvatureRadius() if method == "curvature" else SoftmaxRadius(method=method)
        with quiet():
            guard = safestep.attach(self.attached, self.optimizers, **options)
            self.row.attached(self)
        return guard

    def batch(self) -> tuple[tuple[Any, ...], Tensor]:
        batch = self.case.batch(self.index, self.dtype)
        return batch.args, batch.labels

    def loss(self) -> Tensor:
        args, labels = self.batch()
        return self.case.loss(self.called(*args), labels)

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self, between: Callable[[Training], object] = lambda training: None) -> None:
        with quiet():
            self.row.step(self)
        self.index += 1

    def everything(self) -> dict[str, Any]:
        return super().everything() | {"more": _plain(self.more)}


def plain(loop: Loop) -> None:
    """One iteration: what every loop does."""
    loop.zero_grad()
    loop.loss().backward()
    for optimizer in loop.optimizers:
        optimizer.step()


def nothing(loop: Loop) -> None:
    """Wrap nothing."""


def twin(loop: Loop, scene: Scene, moved: dict[str, Tensor], method: str) -> float:
    """Return r by a dense Jacobian in float64, which shares nothing with safestep."""
    return twin_curvature(loop, scene, moved) if method == "curvature" else twin_ratio(loop, scene, moved)


@dataclass(frozen=True)
class Row:
    """What is wrapped around a training.

    Attributes:
        name: the row's title.
        prepare: wraps it, before a guard is attached.
        attached: called after that.
        step: one iteration of the loop.
        case: the model, its batches and its loss.
        type: the lowest precision that the forward computes in, which says how near r has to be to the truth.
        refused: part of the error, by method or for all (""); empty if no method refuses.
        off: by method, why r is not that of the twin: it is another one's, and the table says so.
        note: what the user should know.
        counted: how many of three steps are recorded.
        recipe: another optimizer for large steps.
        truth: an independent r of what a step did, in place of the dense twin.
        fixed: whether the optimizer of the row may not be another.
        long: whether only the long tests run it.
    """

    name: str
    prepare: Callable[[Loop], None] = nothing
    attached: Callable[[Loop], None] = nothing
    step: Callable[[Loop], None] = plain
    case: Case = ZOO["mlp"]
    type: torch.dtype = torch.float32
    refused: Mapping[str, str] = field(default_factory=dict)
    off: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    counted: int = 3
    recipe: Recipe = FAR
    truth: Truth = twin
    fixed: bool = False
    long: bool = False

    def __str__(self) -> str:
        return self.name

    def refusal(self, method: str) -> str:
        """Return part of the error with which a method refuses the row; an empty text if it does not."""
        return self.refused.get("", self.refused.get(method, ""))

    def precision(self, method: str) -> float:
        """Return how far r by a method may lie from the truth."""
        return (ROUNDING if method in {"exact", "curvature"} else PROBED)[self.type]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Ignore what torch and a guard say about the wrappers: it is not what these tests are about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _plain(value: Any) -> Any:
    """Return copies of the tensors in plain containers, and of what has a ``state_dict``."""
    if hasattr(value, "state_dict"):
        value = value.state_dict()
    return _copy({key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value)
