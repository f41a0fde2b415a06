"""What a post-mortem found: the cause, in sentences and in numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from safestep.records.report import plain

FACTOR, LAYER_FACTOR = 5.0, 15.0
"""A cause is what makes r at least so many times smaller when it is left out; the second of a layer's part of the step.
In 54 steps of trained models (three models, three optimizers) the layer that matters most made it 1.2 to 3.3 times
smaller, samples that stand out 0.9 to 2.8 times; in 48 first steps of fresh ones the layer 1.2 to 10.7 times."""


class Cause(StrEnum):
    """What carried a step too far."""

    NONE = "none"
    """Nothing: the step is inside its radius, or little beyond it and the loss falls."""
    LENGTH = "length"
    """The step as a whole: the learning rate, or the optimizer's state. No layer and no sample carries it alone."""
    BATCH = "batch"
    """Its batch, or some samples of it: without them the same optimizer's step is several times nearer."""
    LAYER = "layer"
    """One layer, by its part of the step or by the size of its weights."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's part in a step.

    Attributes:
        name: of the module that has the parameters.
        size: ``||theta||`` of its parameters, and ``length`` that of its part of the step.
        length: ``||p||`` of its part.
        gain: the root mean square of the rows' norms of its weights, which is what it multiplies inputs of size 1 by;
            nan for embeddings and layers without a matrix.
        alone: r of its part of the step alone.
        without: r of the step without its part.
    """

    name: str
    size: float
    length: float
    gain: float
    alone: float
    without: float


@dataclass(frozen=True, slots=True)
class Sample:
    """How far one sample of the batch is moved.

    Attributes:
        index: in the batch, from 0; micro-batches one after the other.
        ratio: r of the sample, the largest over its positions; of a loss that has no softmax, the size of its change.
        place: the position with the largest, such as that of a token; empty where a sample has one output.
    """

    index: int
    ratio: float
    place: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Instead:
    """A step that was tried in the place of the one in question: a suspect left out.

    Attributes:
        cause: what the suspect is.
        words: how this step was taken.
        ratio: its r.
        factor: how many times smaller its r has to be.
    """

    cause: Cause
    words: str
    ratio: float
    factor: float = FACTOR

    def explains(self, ratio: float) -> bool:
        """Return whether the suspect is the cause of this r."""
        return ratio >= self.factor * self.ratio


@dataclass(frozen=True, slots=True)
class Point:
    """The loss at ``theta + t p``: of the batch, and of an ordinary one (nan where there is none)."""

    t: float
    loss: float
    ordinary: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Autopsy:
    """What a post-mortem found. ``str()`` has the sentences.

    Attributes:
        cause: what carried the step too far.
        findings: in sentences.
        ratio: r of the step that the cause is judged by: the largest over the samples of the softmax radius, or that of
            the curvature radius where the loss has no softmax.
        ratios: r by ``exact`` (the nearest complex zero), ``largest``, ``mean`` and ``curvature``; nan where one does
            not apply, inf where the step goes uphill on its batch. ``1 / r`` of the step would have been inside.
        step_length: ``||p||``, in units of the parameters.
        rates: the learning rate of every parameter group.
        layers: every layer, in the order of the model.
        samples: every sample, the farthest first.
        instead: the steps that were tried in its place.
        curve: the loss along the step, from its start to beyond its end.
        notes: what could not be measured, and why.
    """

    cause: Cause
    findings: tuple[str, ...]
    ratio: float
    ratios: dict[str, float]
    step_length: float
    rates: tuple[float, ...]
    layers: tuple[Layer, ...]
    samples: tuple[Sample, ...]
    instead: tuple[Instead, ...]
    curve: tuple[Point, ...]
    notes: tuple[str, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """Return it as results.json keeps it; non-finite numbers are texts."""
        record: dict[str, Any] = plain(asdict(self))
        return record

    def __str__(self) -> str:
        return "\n".join([f"cause: {self.cause}", *self.findings])
