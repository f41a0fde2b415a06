"""autopsy(): takes a step again from a checkpoint, measures what carried it, and tries steps in its place."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from safestep.errors import MeasurementError, SafestepWarning, first_line
from safestep.jvp.restore import untouched
from safestep.radius import HessianRadius, Radius, SoftmaxRadius
from safestep.tools.autopsy import measures
from safestep.tools.autopsy.cause_words import findings, numbered
from safestep.tools.autopsy.layers import layers_of
from safestep.tools.autopsy.outcome_of_step import FACTOR, LAYER_FACTOR, Autopsy, Cause, Instead, Layer, Sample
from safestep.tools.autopsy.samples import outstanding, samples_of, without
from safestep.tools.autopsy.step_to_examine import Scene


def autopsy(scene: Scene) -> Autopsy:
    r"""Return what carried a step too far: its length, its batch, or one layer.

    Equation:
        Each suspect is left out and the step taken again: the first with ``r / r' >= 5`` is the cause. They are: the
        part of one layer in ``p`` (here 15 times), if it carries an ordinary batch's step as well; the batch, with an
        ordinary one in its place; the samples that stand out. None of these: the length as a whole.

    Copies of the optimizers take the steps: model, optimizer and every random generator are bit for bit as before.

    Args:
        scene: the model and the optimizer before the step, its batch and the loss.

    Returns:
        The cause, what speaks for it in sentences, and the numbers.

    Raises:
        MeasurementError: if loss or step are not finite, the optimizer has no state, or r cannot be measured.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Linear(2, 3)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=100.0)
        >>> batch = torch.eye(2), torch.tensor([0, 2])
        >>> def loss(model, batch):
        ...     return nn.functional.cross_entropy(model(batch[0]), batch[1])
        >>> autopsy(Scene(model=model, optimizer=sgd, batch=batch, loss=loss)).cause
        <Cause.LENGTH: 'length'>

    Note:
        r is exact to first order, on the batch alone. A wrong batch that does not move the logits several times
        farther (shuffled labels, say) is not found; without an ordinary batch nor is one that is wrong as a whole.
    """
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as told, untouched(scene.model, scene.trained):
        warnings.simplefilter("always")
        found = _examined(scene, notes)
    notes += dict.fromkeys(str(one.message) for one in told if issubclass(one.category, SafestepWarning))
    return replace(found, findings=tuple(findings(found)), notes=tuple(dict.fromkeys(notes)))


def _examined(scene: Scene, notes: list[str]) -> Autopsy:
    radii = SoftmaxRadius(method="exact"), *measures.curvatures(scene, scene.batch)
    with scene.step(scene.batch) as (trial, step):
        radius, ratio = measures.first(trial.forwards, step, notes, *radii)
        if math.isnan(ratio):
            raise MeasurementError("r of the step is nan: its change of the model's outputs is not finite")
        softmax, size = isinstance(radius, SoftmaxRadius), step.length
        ratios = measures.ratios(scene, trial.forwards, step, ratio, notes, softmax=softmax)
        samples = samples_of(step, trial.forwards, softmax=softmax)
        ends = measures.ends_of(step)
        layers = measures.layers(scene, trial.forwards, step, ends, radius)
        curve = measures.curve(scene, trial.forwards, step, ends, ratio)
    instead = tuple(_instead(scene, radius, ratio, layers, samples, notes))
    decisive = next((one.cause for one in instead if one.explains(ratio)), None)
    falls = next(point.loss for point in curve if point.t == 1.0) <= curve[0].loss
    cause = Cause.NONE if ratio <= 1.0 or (ratio < FACTOR and falls and not decisive) else decisive or Cause.LENGTH
    return Autopsy(
        cause=cause,
        findings=(),
        ratio=ratio,
        ratios=ratios,
        step_length=size,
        layers=layers,
        samples=tuple(samples),
        instead=instead,
        curve=curve,
    )


def _instead(
    scene: Scene, radius: Radius, ratio: float, layers: Sequence[Layer], samples: Sequence[Sample], notes: list[str]
) -> Iterator[Instead]:
    """Take steps in the place of this one, each without a suspect: the first to make r much smaller has the cause."""
    top = min(layers, key=lambda layer: layer.without)
    by_layer = Instead(Cause.LAYER, f"without the part of layer {top.name}", top.without, LAYER_FACTOR)
    ordinary = [_again(scene, batch, radius, leave=top.name) for batch in scene.ordinary]
    whole, rest = (median(found) for found in zip(*ordinary, strict=True)) if ordinary else (math.nan, math.nan)
    by_batch = Instead(Cause.BATCH, "on an ordinary batch", whole)
    # A layer that carries this batch's step alone does so because of the batch.
    batch_first = whole < LAYER_FACTOR * rest and by_batch.explains(ratio)
    order = (by_batch, by_layer) if batch_first else (by_layer, by_batch)
    yield from (one for one in order if (ordinary if one is by_batch else len(layers) > 1))
    if left_out := outstanding(samples):
        part = without(scene.batch, left_out, len(samples))
        try:
            found, _ = _again(scene, part, radius, count=len(samples) - len(left_out))
        except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
            notes.append(f"the batch could not be taken without some of its samples: {first_line(error)}")
        else:
            yield Instead(Cause.BATCH, f"without {numbered(left_out)} of {len(samples)}", found)


def _again(scene: Scene, batch: Any, radius: Radius, *, leave: str = "", count: int = 0) -> tuple[float, float]:
    """Return r of the step on another batch, and of this step without the part of a layer.

    Raises:
        ValueError: if the batch has another number of samples than expected.
    """
    with scene.step(batch) as (trial, step):
        if isinstance(radius, HessianRadius):  # of this batch's loss
            radius = measures.curvatures(scene, batch)[1]
        whole = measures.measured(radius, step, trial.forwards)
        seen = len(samples_of(step, trial.forwards, softmax=isinstance(radius, SoftmaxRadius))) if count else 0
        if seen != count:
            raise ValueError(f"{seen} samples instead of {count}: loss(model, batch) takes no part of a batch")
        if not leave:
            return whole, whole
        ends = measures.ends_of(step)
        moving = ends.keys() - set(layers_of(scene.model, ends)[leave])
        return whole, measures.measured(radius, measures.part(step, ends, moving), trial.forwards)
