"""Something to learn, whole: a model, batches without end that repeat with the seed, and a test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from safestep.lab.digits import CLASSES, Split, load_split
from safestep.lab.disturbances import Batch
from safestep.lab.models import mlp
from safestep.lab.stdlib_text import CHARACTERS, Text, load_text, windows
from safestep.lab.transformers import CharGPT, DigitsTransformer

_CONTEXT = 64
"""Characters in a piece of text."""


@dataclass
class Task(ABC):
    """What is learned, by which model, and how it is tested.

    Attributes:
        model: in its first state; drawn from torch's global generator.
        classes: logits of a sample.
        batch_size: samples in a batch, where nothing else is asked for.
    """

    model: nn.Module
    classes: int
    batch_size: int

    @abstractmethod
    def batches(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yield batches without end; nothing but the generator is drawn from."""

    @abstractmethod
    def logits(self, inputs: Tensor, factor: float = 1.0) -> Tensor:
        """Return the model's logits of inputs multiplied by a factor, shape ``(*samples, classes)``."""

    @abstractmethod
    def held_out(self) -> Batch:
        """Return what is kept for the test, as one batch."""

    def loss(self, inputs: Tensor, labels: Tensor, factor: float = 1.0) -> Tensor:
        """Return the mean cross-entropy of a batch in nats, a 0-d tensor."""
        return cross_entropy(self.logits(inputs, factor).flatten(0, -2), labels.flatten())

    @torch.no_grad()
    def test(self) -> tuple[float, float]:
        """Return loss, in nats, and accuracy, in [0, 1], on what is held out."""
        training = self.model.training
        self.model.eval()
        inputs, labels = self.held_out()
        logits = self.logits(inputs)
        self.model.train(training)
        right = (logits.argmax(-1) == labels).float().mean()
        return float(cross_entropy(logits.flatten(0, -2), labels.flatten())), float(right)


@dataclass
class DigitsTask(Task):
    """The digits of scikit-learn, in another order at every pass; a pass may end within a batch.

    Attributes:
        split: the images.
    """

    split: Split = field(repr=False)

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yield batches without end; nothing but the generator is drawn from."""
        images, waiting = self.split.train_x, torch.empty(0, dtype=torch.int64)
        while True:
            while len(waiting) < size:
                waiting = torch.cat([waiting, torch.randperm(len(images), generator=generator)])
            chosen, waiting = waiting[:size], waiting[size:]
            yield images[chosen], self.split.train_y[chosen]

    def logits(self, inputs: Tensor, factor: float = 1.0) -> Tensor:
        """Return the model's logits of pixels multiplied by a factor."""
        logits: Tensor = self.model(factor * inputs)
        return logits

    def held_out(self) -> Batch:
        """Return the test images."""
        return self.split.test_x, self.split.test_y


@dataclass
class TextTask(Task):
    """The next character of Python's standard library, in pieces that begin anywhere.

    Attributes:
        text: to learn and to test on.
    """

    text: Text = field(repr=False)

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yield batches without end; nothing but the generator is drawn from."""
        train = self.text.train
        while True:
            yield windows(train, torch.randint(len(train) - _CONTEXT, (size,), generator=generator), _CONTEXT)

    def logits(self, inputs: Tensor, factor: float = 1.0) -> Tensor:
        """Return the model's logits of text whose embeddings are multiplied by a factor."""
        logits: Tensor = self.model(inputs, factor)
        return logits

    def held_out(self) -> Batch:
        """Return the held-out text in pieces side by side; the rest at its end is left out."""
        held = self.text.held_out
        return windows(held, range(0, len(held) - _CONTEXT, _CONTEXT), _CONTEXT)


def digits_mlp(seed: int) -> Task:
    """Return the digits for the perceptron, in the split of a seed."""
    return DigitsTask(mlp(classes=CLASSES), CLASSES, 128, load_split(seed))


def digits_transformer(seed: int) -> Task:
    """Return the digits for a tiny transformer, in the split of a seed."""
    return DigitsTask(DigitsTransformer(classes=CLASSES), CLASSES, 64, load_split(seed))


def text_gpt(_: int) -> Task:
    """Return the standard library for a tiny GPT; the text is the same for every seed."""
    return TextTask(CharGPT(len(CHARACTERS), _CONTEXT), len(CHARACTERS), 16, load_text())
