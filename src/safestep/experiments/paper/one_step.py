"""One step along a direction: which length is r = 1, exactly, what longer ones do, and from where on they do harm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.functional import cross_entropy

from safestep.formulas.softmax_ratio import spread, step_ratio
from safestep.jvp.replay import no_trace
from safestep.lab.tasks import Batch

Displacement = Mapping[str, Tensor]
"""A step, by the name of the parameter."""
LEAST = 1e-12
"""A loss, a share or an r below this counts as this, where something is divided by it."""


@dataclass(frozen=True)
class Course:
    """What steps of one direction do, at rising multiples of the step that has r = 1.

    Attributes:
        rate: what the given displacement is multiplied by for r = 1; the learning rate, if it is a negative gradient.
        length: of the step of r = 1.
        inflation: the loss on the batch that r is of, over that before the step.
        kept: the share of right answers on what is held out, over that before.
    """

    rate: float
    length: float
    inflation: list[float]
    kept: list[float]


def derivative(
    model: nn.Module, inputs: Tensor, displacement: Displacement, *within: nn.Module
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the logits and what modules within give, as these are run, and how each changes with a step: exactly."""
    start = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def forward(at: dict[str, Tensor]) -> list[Tensor]:
        given: list[Tensor] = []
        hooks = [module.register_forward_hook(lambda *seen: given.append(seen[-1])) for module in within]
        logits = functional_call(model, at, (inputs,))
        for hook in hooks:
            hook.remove()
        return [logits, *given]

    with no_trace(model):  # which chooses kernels that have a forward derivative
        values, changes, *_ = jvp(forward, (start,), (dict(displacement),))
    return values, changes


def exact_ratio(model: nn.Module, inputs: Tensor, displacement: Displacement) -> float:
    """Return r of a step, the largest over the samples: spread(J p) / pi, with J p by forward-mode differentiation."""
    return step_ratio(float(spread(derivative(model, inputs, displacement)[1][0]).max()))


def downhill(model: nn.Module, batch: Batch) -> Displacement:
    """Return the negative gradient of the mean cross-entropy: the step of a learning rate of 1."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(_loss(model(batch[0]), batch[1]), parameters)
    return {name: -gradient for name, gradient in zip(names, gradients, strict=True)}


def random_direction(model: nn.Module, generator: torch.Generator) -> Displacement:
    """Return a displacement whose every component is a normal random number."""
    return {name: torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()}


def length_of(step: Displacement) -> float:
    """Return the Euclidean length of a step over all parameters."""
    return math.sqrt(sum(float(part.square().sum()) for part in step.values()))


@torch.no_grad()
def course(model: nn.Module, step: Displacement, batch: Batch, held_out: Batch, ratios: Sequence[float]) -> Course:
    """Return what steps of these r do, each taken from where the model stands, which is left as it is."""
    rate = 1.0 / max(exact_ratio(model, batch[0], step), LEAST)
    inputs, parts = torch.cat([batch[0], held_out[0]]), [len(batch[0]), len(held_out[0])]
    lines = []
    for ratio in (0.0, *ratios):
        moved = {name: parameter + ratio * rate * step[name] for name, parameter in model.named_parameters()}
        seen, fresh = functional_call(model, moved, (inputs,)).split(parts)
        lines.append((float(_loss(seen, batch[1])), float((fresh.argmax(-1) == held_out[1]).float().mean())))
    (loss, accuracy), *after = lines
    inflation = [one / max(loss, LEAST) if math.isfinite(one) else math.inf for one, _ in after]
    return Course(rate, rate * length_of(step), inflation, [right / max(accuracy, LEAST) for _, right in after])


def crossing(ratios: Sequence[float], heights: Sequence[float], level: float) -> float:
    """Return the smallest r at which a height reaches a level, between two of them by logarithms; inf if none does.

    Example:
        >>> crossing([0.1, 1.0, 100.0], [1.0, 1.0, 4.0], 2.0), crossing([0.1], [1.0], 2.0)
        (10.0, inf)
    """
    place = next((place for place, height in enumerate(heights) if height >= level), None)
    if place is None or place == 0 or math.isinf(heights[place]):
        return math.inf if place is None else ratios[place]
    below, above = max(heights[place - 1], LEAST), heights[place]
    part: float = math.log(level / below) / math.log(above / below)
    return float(ratios[place - 1] * (ratios[place] / ratios[place - 1]) ** part)


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits.flatten(0, -2), labels.flatten())
