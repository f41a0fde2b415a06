"""The three digit models of the paper's spikes, all of their data as one batch, and who trains them by Adam."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.optim import Adam

from safestep._torch.extras import need
from safestep.experiments.evidence.evidence_methods import DEFAULT, PLAIN, Contestant
from safestep.experiments.paper.one_step import exact_ratio
from safestep.guard.attach import attach
from safestep.lab.digits import CLASSES
from safestep.lab.models import Block
from safestep.lab.rivals.clipping import CLIPPINGS
from safestep.lab.rivals.stepper import Stepper
from safestep.lab.tasks import Task
from safestep.policy import Cap
from safestep.radius import SoftmaxRadius

CNN = "cnn-batchnorm"
GRADIENT_CAP, CAP = "gradient-cap", "softmax-cap"
METHODS = (PLAIN, "clip", "agc", GRADIENT_CAP, CAP, DEFAULT)
_HELD_OUT = 0.2


def _transformer() -> nn.Module:
    """Return one block over one token, the whole image: its attention can only attend to itself."""
    embedded = nn.Linear(64, 32), nn.Unflatten(1, (1, 32))
    return nn.Sequential(*embedded, Block(32, 1, causal=False), nn.Flatten(), nn.Linear(32, CLASSES))


def _perceptron() -> nn.Module:
    hidden = [layer for _ in range(3) for layer in (nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU())]
    return nn.Sequential(*hidden, nn.Linear(64, CLASSES))


def _convolutions() -> nn.Module:
    """Return convolutions along the image as one line of 64 pixels."""

    def layer(channels: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(channels, 32, (1, 3), padding=(0, 1)), nn.BatchNorm2d(32), nn.ReLU()

    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES)
    model = nn.Sequential(nn.Unflatten(1, (1, 1, 64)), *layer(1), *layer(32), *ends)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the faster layout
    return model


MODELS: Mapping[str, Callable[[], nn.Module]] = {
    "transformer": _transformer,
    "mlp-layernorm": _perceptron,
    CNN: _convolutions,
}
"""Every architecture by its name in settings, with the sizes of the paper's code."""


def full_batch(architecture: str) -> Task:
    """Return the digits, the first fifth held out as in the paper's code and the rest one batch, for a new model."""
    pixels, digits = need("sklearn.datasets", "experiments").load_digits(return_X_y=True)
    x, y = torch.as_tensor(pixels.astype("float32") / 16.0), torch.as_tensor(digits)
    kept = int(_HELD_OUT * len(x))
    batch = x[kept:], y[kept:]
    return Task(
        MODELS[architecture](), CLASSES, len(batch[1]), 1, lambda *_: itertools.repeat(batch), (x[:kept], y[:kept])
    )


def contestant(method: str, task: Task, rate: float) -> Contestant:
    """Return a method of `METHODS` around Adam."""
    model, optimizer = task.model, Adam(task.model.parameters(), lr=rate)
    if method == DEFAULT:
        return Contestant(Stepper(optimizer), attach(model, optimizer))
    if method == CAP:
        return Contestant(Stepper(optimizer), attach(model, optimizer, radius=SoftmaxRadius(), policy=Cap(1.0)))

    def shorten() -> None:
        # The paper's code: as if rate times gradient were the step, in evaluation mode, on all that is trained on.
        (group,) = optimizer.param_groups
        step = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        inputs, _ = next(task.batches(0, torch.Generator()))
        group["lr"] /= max(1.0, group["lr"] * exact_ratio(model.eval(), inputs, step))
        model.train()

    before = {PLAIN: None, GRADIENT_CAP: shorten}
    return Contestant(Stepper(optimizer, before=before[method] if method in before else CLIPPINGS[method](model)))
