"""What a post-mortem found: the cause, in sentences and in numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from safestep.records.report import plain

FACTOR, LAYER_FACTOR = 5.0, 15.0
"""A cause is what makes r at least so many times smaller when it is left out; the second of a layer's part of the step.
docs/autopsy.md has the measurements behind them."""


class Cause(StrEnum):
    """What carried a step too far."""

    NONE = "none"
    """Nothing: the step is inside its radius, or little beyond it and the loss falls."""
    LENGTH = "length"
    """The step as a whole: the learning rate, or the optimizer's state."""
    BATCH = "batch"
    """Its batch, or some samples of it."""
    LAYER = "layer"
    """One layer, by its part of the step."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: ``length`` of its part of the step, r of this part ``alone``, and of the step ``without`` it."""

    name: str
    length: float
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

    @property
    def name(self) -> str:
        """Which one it is, in words."""
        return f"{self.index} at position {', '.join(map(str, self.place))}" if self.place else str(self.index)


@dataclass(frozen=True, slots=True)
class Instead:
    """A step taken in the place of the one in question: without what, its r, and how many times smaller r must be."""

    cause: Cause
    words: str
    ratio: float
    factor: float = FACTOR

    def explains(self, ratio: float) -> bool:
        """Return whether the suspect is the cause of this r."""
        return math.isfinite(self.ratio) and ratio >= self.factor * self.ratio


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
            the curvature radius where the loss has no softmax. ``1 / r`` of the step would have been inside.
        ratios: r by ``exact`` (the nearest complex zero), ``largest``, ``mean`` and ``curvature``; without those that
            cannot be measured. inf where the step goes uphill on its batch.
        step_length: ``||p||``, in units of the parameters.
        layers: every layer, in the order of the model.
        samples: every sample, the farthest first.
        instead: the steps that were taken in its place.
        curve: the loss along the step, from its start to beyond its end.
        notes: what could not be measured, and why.
    """

    cause: Cause
    findings: tuple[str, ...]
    ratio: float
    ratios: dict[str, float]
    step_length: float
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
