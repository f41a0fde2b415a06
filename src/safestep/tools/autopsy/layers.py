"""The layers of a model, each with its part of a step, and the size of its weights beside that of the others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median

import torch
from torch import Tensor, nn

from safestep.recording.step import Parameters, Step

_MOST = 64
"""So many layers at most: of more, those with a beginning of the name in common are one."""


def layers_of(model: nn.Module, moving: Iterable[Tensor]) -> dict[str, list[Tensor]]:
    """Return the parameters that move by the module that has them.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1, bias=False))
        >>> {name: len(parameters) for name, parameters in layers_of(model, model.parameters()).items()}
        {'0': 2, '1': 1}
    """
    names: dict[Tensor, list[str]] = {parameter: name.split(".")[:-1] for name, parameter in model.named_parameters()}
    paths = {parameter: names.get(parameter, ["(outside the model)"]) for parameter in moving}
    depth = max(map(len, paths.values()), default=0)
    while True:
        found: dict[str, list[Tensor]] = {}
        for parameter, path in paths.items():
            found.setdefault(".".join(path[:depth]) or type(model).__name__, []).append(parameter)
        if len(found) <= _MOST or depth <= 1:
            return found
        depth -= 1


def gains(layers: dict[str, list[Tensor]], model: nn.Module) -> dict[str, float]:
    """Return by what each layer multiplies inputs of size 1: ``||W||_F / sqrt(outputs)``, the largest of its matrices.

    nan for a layer without a matrix; those of embeddings are none in this sense, as their inputs are no numbers.

    Args:
        layers: the values of the parameters of each.
        model: names the embeddings.
    """
    tables = {name for name, one in model.named_modules() if isinstance(one, (nn.Embedding, nn.EmbeddingBag))}
    return {
        name: max(
            (length([q]) / math.sqrt(len(q)) for q in values if q.ndim > 1 and name not in tables), default=math.nan
        )
        for name, values in layers.items()
    }


def excess(gain: dict[str, float]) -> tuple[str, float]:
    """Return the layer with the largest gain, and how many times the median of the others it is.

    Example:
        >>> excess({"0": 1.0, "1": 30.0, "2": 1.0, "norm": math.nan})
        ('1', 30.0)
    """
    known = {name: value for name, value in gain.items() if value > 0.0}
    if len(known) < 3:
        return "", 1.0
    name = max(known, key=lambda one: known[one])
    return name, known[name] / median(value for other, value in known.items() if other != name)


def part_of(step: Step, ends: Parameters, moving: Sequence[Tensor]) -> Step:
    """Return the part of a step that moves some parameters alone; the model stands at its end."""
    put(step.start, step.start)
    put(ends, moving)
    part = Step(0, peers=step.peers)
    part.start |= step.start
    return part


@torch.no_grad()
def put(values: Parameters, parameters: Iterable[Tensor]) -> None:
    """Put parameters at these values."""
    for parameter in parameters:
        parameter.copy_(values[parameter])


def length(tensors: Iterable[Tensor]) -> float:
    """Return the Euclidean norm of tensors together."""
    return math.hypot(*(float(torch.linalg.vector_norm(one.detach(), dtype=torch.float64)) for one in tensors))
