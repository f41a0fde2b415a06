"""The slow twin: the exact r of a displacement from a dense Jacobian in float64, row by row, in reverse mode.

Shares no line with safestep's measurement: another model object, another differentiation, another arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.batches import IGNORED, Batch
from zoo.training import Generators, Training, generators, set_generators


@dataclass(frozen=True)
class Scene:
    """What a training forward was made of: kept before it runs, so that it can be run again elsewhere.

    Attributes:
        state: parameters and buffers.
        chance: the random generators.
        batch: inputs and labels.
    """

    state: dict[str, Tensor]
    chance: Generators
    batch: Batch

    @classmethod
    def of(cls, training: Training) -> Scene:
        state = {name: value.clone() for name, value in training.model.state_dict().items()}
        return cls(state, generators(), training.case.batch(training.index, training.dtype))


def twin_ratio(
    training: Training,
    scene: Scene,
    displacement: dict[str, Tensor],
    *,
    mode: Literal["train", "eval"] = "train",
    head: Literal["softmax", "sigmoid"] = "softmax",
    dtype: torch.dtype = torch.float64,
) -> float:
    """Return the exact r of a displacement, by the definition.

    ``dtype`` is that of the forward; another than float64 only for models that draw other numbers in another dtype.
    """
    _, tangent = _apply(training, scene, displacement, mode, torch.mul, dtype)
    if head == "sigmoid":
        spreads = tangent.abs().amax(-1)
    else:  # a class with a logit of -inf (a nan here) has no weight
        spreads = tangent.nan_to_num(nan=-math.inf).amax(-1) - tangent.nan_to_num(nan=math.inf).amin(-1)
    return spreads.flatten()[_counted(scene.batch.labels)].max().item() / math.pi


def twin_curvature(
    training: Training, scene: Scene, displacement: dict[str, Tensor], *, dtype: torch.dtype = torch.float64
) -> float:
    """Return r = p.Gp / (-2 g.p) of the case's mean cross-entropy, by the definition, all classes written out."""
    logits, tangent = _apply(training, scene, displacement, "train", torch.mul, dtype)
    a = tangent.nan_to_num(nan=0.0).flatten(0, -2)  # a class with a logit of -inf has no weight
    z, counted = logits.flatten(0, -2), _counted(scene.batch.labels)
    weights = torch.softmax(z, -1)
    variance = (weights * a.square()).sum(-1) - (weights * a).sum(-1).square()
    slope = ((weights - F.one_hot(scene.batch.labels.flatten().clamp(min=0), z.shape[-1])) * a).sum(-1)
    return (variance[counted].mean() / (-2 * slope[counted].mean())).item()


def applied_ratio(training: Training, act: Callable[[], object], **options: Any) -> float:
    """Return the twin's r of what ``act`` does to the parameters: forward, backward and step on the present batch."""
    scene, start = Scene.of(training), training.parameters()
    act()
    moved = {name: p.double() - start[name].double() for name, p in training.parameters().items()}
    return twin_ratio(training, scene, moved, **options)


def twin_sensitivity(training: Training, scene: Scene, errors: dict[str, Tensor]) -> float:
    """Return by how much r can change if every element of the displacement is off by so much: sum_j |J_ij| e_j."""
    _, reach = _apply(training, scene, errors, "train", lambda gradient, error: gradient.abs() * error)
    return 2 * reach.nan_to_num(nan=0.0).max().item() / math.pi


def _apply(
    training: Training,
    scene: Scene,
    vectors: dict[str, Tensor],
    mode: str,
    product: Callable[[Tensor, Tensor], Tensor],
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Return the logits and, per logit, the sum of the products of its gradient and the vectors; nan at -inf."""
    before = generators()
    model = training.case.build().to(dtype)
    model.load_state_dict({name: _cast(value, dtype) for name, value in scene.state.items()})
    model.train(mode == "train")
    set_generators(scene.chance)
    logits = training.case.read(model(*_cast(scene.batch.args, dtype), **_cast(scene.batch.kwargs, dtype)))
    sums = []
    for logit in logits.flatten():
        model.zero_grad()
        if math.isfinite(logit.item()):
            logit.backward(retain_graph=True)  # and not autograd.grad, which reentrant checkpoints refuse
        sums.append(
            sum(
                product(p.grad.to_dense().double(), vectors[name].double()).sum().item()
                for name, p in model.named_parameters()
                if p.grad is not None
            )
            if math.isfinite(logit.item())
            else math.nan
        )
    set_generators(before)
    return logits.detach().double(), torch.tensor(sums, dtype=torch.float64).reshape(logits.shape)


def _counted(labels: Tensor) -> Tensor:
    if labels.is_floating_point():  # multi-label targets: every sample counts
        return torch.ones(len(labels), dtype=torch.bool)
    return labels.flatten() != IGNORED


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _cast(item, dtype) for key, item in value.items()}
    return tuple(_cast(item, dtype) for item in value) if isinstance(value, tuple) else value
