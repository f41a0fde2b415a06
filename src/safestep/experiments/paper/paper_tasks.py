"""Architectures and activations, trained to a checkpoint, what a step is judged on, and logits over a temperature."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from safestep.experiments.limits.limits_steps import steps as training
from safestep.experiments.limits.limits_tasks import SUBJECTS
from safestep.lab.digits import CLASSES
from safestep.lab.models import DigitsTransformer
from safestep.lab.seeding import LARGEST_SEED, seed_everything
from safestep.lab.tasks import Batch, digits_mlp
from safestep.schedules import Constant

LINEAR, PERCEPTRON = "linear", "digits-mlp"
ARCHITECTURES = (LINEAR, *SUBJECTS)
ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU, "silu": nn.SiLU, "softplus": nn.Softplus, "sigmoid": nn.Sigmoid,
    "gelu-tanh": partial(nn.GELU, "tanh"), "tanh": nn.Tanh, "relu": nn.ReLU,
}  # fmt: skip
"""Of the perceptron, each the name of an architecture."""
_SEEN, _HELD_OUT = 384, 2048
"""Samples that r and the loss are of, as in the paper's code, and at most so many for the accuracy."""


class ClassToken(DigitsTransformer):
    """The paper's transformer: a token of its own, which alone gives the logits, where ours takes the mean of all."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.places = (nn.Parameter(0.02 * torch.randn(size, 32)) for size in (1, 9))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(batch, 10)`` of images ``(batch, 64)``."""
        rows = self.embedding(images.unflatten(-1, (8, 8)))
        tokens = torch.cat([self.own.expand(len(rows), 1, -1), rows], 1) + self.places
        logits: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits


class Cooled(nn.Module):
    """A model whose logits are divided by a temperature."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return logits over the temperature."""
        logits: Tensor = self.model(*inputs) / self.temperature
        return logits


def checkpoint(
    seed: int, *, architecture: str, steps: int, temperature: float = 1.0, way: str = "trained"
) -> tuple[nn.Module, Batch, Batch]:
    """Train by AdamW for so many steps, at the constant rate that somebody would begin with.

    Args:
        seed: of weights, split and batches.
        architecture: of `ARCHITECTURES` or `ACTIVATIONS`.
        steps: of training.
        temperature: of the model that is returned.
        way: "trained" at that temperature, or at 1 and "read" at it.

    Returns:
        The model in evaluation mode, where a sample has no part in another's logits; a batch of what is learned, for
        gradient, r and loss; and what is held out.
    """
    seed_everything(seed)
    subject = SUBJECTS.get(architecture, SUBJECTS[PERCEPTRON])
    task = replace(digits_mlp(seed), model=nn.Linear(64, CLASSES)) if architecture == LINEAR else subject.task(seed)
    if architecture in ACTIVATIONS:
        task.model = nn.Sequential(
            *(ACTIVATIONS[architecture]() if isinstance(one, nn.GELU) else one for one in task.model.children())
        )
    learning = replace(task, model=Cooled(task.model, temperature if way == "trained" else 1.0))
    optimizer = AdamW(learning.model.parameters(), lr=subject.rates["adamw"])
    deque(training(learning, [optimizer], None, Constant(), steps, seed), maxlen=0)
    inputs, labels = task.held_out
    of_row = labels[0].numel()
    batch = next(task.batches(_SEEN // of_row, torch.Generator().manual_seed(LARGEST_SEED - seed)))
    return Cooled(task.model, temperature).eval(), batch, (inputs[: _HELD_OUT // of_row], labels[: _HELD_OUT // of_row])
