"""Something to learn, whole: a model, batches without end that repeat with the seed, and a test."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from safestep.lab.digits import CLASSES, load_split
from safestep.lab.models import CharGPT, CharLSTM, DigitsTransformer, cnn, mlp
from safestep.lab.stdlib_text import CHARACTERS, load_library, load_text, windows

Batch = tuple[Tensor, Tensor]
"""Inputs and labels."""
_CONTEXT = 64
"""Characters in a piece of text."""


@dataclass
class Task:
    """What is learned, by which model, and how it is tested.

    Attributes:
        model: in its first state; drawn from torch's global generator.
        classes: logits of a sample.
        batch_size: samples in a batch, where nothing else is asked for.
        epoch: batches of that many in which as much is met as there is to learn from.
        batches: yields batches without end, from their size and the only generator that is drawn from.
        held_out: what is kept for the test, as one batch.
    """

    model: nn.Module
    classes: int
    batch_size: int
    epoch: int
    batches: Callable[[int, torch.Generator], Iterator[Batch]] = field(repr=False)
    held_out: Batch = field(repr=False)

    def logits(self, inputs: Tensor, factor: float = 1.0) -> Tensor:
        """Return the logits of inputs multiplied by a factor, shape ``(*samples, classes)``."""
        # of text the embeddings are multiplied: its inputs are no numbers
        logits: Tensor = self.model(factor * inputs) if inputs.is_floating_point() else self.model(inputs, factor)
        return logits

    def loss(self, inputs: Tensor, labels: Tensor, factor: float = 1.0) -> Tensor:
        """Return the mean cross-entropy of a batch in nats, a 0-d tensor."""
        return cross_entropy(self.logits(inputs, factor).flatten(0, -2), labels.flatten())

    @torch.no_grad()
    def test(self) -> tuple[float, float]:
        """Return loss, in nats, and accuracy, in [0, 1], on what is held out."""
        inputs, labels = self.held_out
        training = self.model.training
        self.model.eval()
        logits = self.logits(inputs)
        self.model.train(training)
        right = (logits.argmax(-1) == labels).float().mean()
        return float(cross_entropy(logits.flatten(0, -2), labels.flatten())), float(right)


def shuffled(samples: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the places of batches without end, each pass in another order; a pass may end within a batch.

    Example:
        >>> places = shuffled(5, 3, torch.Generator().manual_seed(0))
        >>> sorted(torch.cat([next(places) for _ in range(5)]).tolist()) == sorted([*range(5)] * 3)
        True
    """
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(samples, generator=generator)])
        chosen, waiting = waiting[:size], waiting[size:]
        yield chosen


def digits_mlp(seed: int) -> Task:
    """Return the digits for the perceptron, in the split of a seed."""
    return _digits(mlp(classes=CLASSES), 128, seed)


def digits_transformer(seed: int) -> Task:
    """Return the digits for a tiny transformer, in the split of a seed."""
    return _digits(DigitsTransformer(classes=CLASSES), 64, seed)


def digits_cnn(seed: int) -> Task:
    """Return the digits for convolutions with BatchNorm, in the split of a seed."""
    return _digits(cnn(classes=CLASSES), 64, seed)


def _digits(model: nn.Module, batch_size: int, seed: int) -> Task:
    split = load_split(seed)

    def batches(size: int, generator: torch.Generator) -> Iterator[Batch]:
        for places in shuffled(len(split.train_x), size, generator):
            yield split.train_x[places], split.train_y[places]

    epoch = math.ceil(len(split.train_x) / batch_size)
    return Task(model, CLASSES, batch_size, epoch, batches, (split.test_x, split.test_y))


def text_gpt(_: int) -> Task:
    """Return the next character of Python's standard library for a tiny GPT; the text is the same for every seed.

    Pieces to learn begin anywhere. Those of the held-out text lie side by side; the rest at its end is left out.
    """
    return _text(CharGPT(len(CHARACTERS), _CONTEXT), load_text())


def text_lstm(_: int) -> Task:
    """Return what `text_gpt` does, for a recurrent network."""
    return _text(CharLSTM(len(CHARACTERS)), load_text())


def library_gpt(_: int) -> Task:
    """Return the next character of the whole standard library, some ten million, for a GPT of 4.8 million parameters.

    The test is on 256 pieces that are spread evenly over the modules that are held out.
    """
    model = CharGPT(len(CHARACTERS), _CONTEXT, width=256, heads=8, layers=6)
    return _text(model, load_library(), pieces=256)


def _text(model: nn.Module, texts: tuple[Tensor, Tensor], pieces: int | None = None) -> Task:
    (train, held_out), context = texts, _CONTEXT

    def batches(size: int, generator: torch.Generator) -> Iterator[Batch]:
        while True:
            yield windows(train, torch.randint(len(train) - context, (size,), generator=generator), context)

    places = range(0, len(held_out) - context, context)
    test = windows(held_out, places[:: max(1, len(places) // pieces)][:pieces] if pieces else places, context)
    size = 16
    return Task(model, len(CHARACTERS), size, math.ceil(len(train) / (context * size)), batches, test)
