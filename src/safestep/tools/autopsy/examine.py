"""autopsy(): takes a step again from a checkpoint, measures what carried it, and tries steps in its place."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from safestep.errors import MeasurementError, SafestepWarning, first_line
from safestep.jvp.restore import untouched
from safestep.radius import CurvatureRadius, HessianRadius, Radius, SoftmaxRadius
from safestep.recording.forwards import Forwards
from safestep.recording.mute import unheard
from safestep.recording.nonfinite import parameters_of
from safestep.recording.proposal import Proposal
from safestep.recording.step import Step
from safestep.records.reading import Reading, Status
from safestep.records.report import StepReport
from safestep.tools.autopsy.cause_words import findings, numbered
from safestep.tools.autopsy.layers import excess, gains, layers_of, length, part_of, put
from safestep.tools.autopsy.outcome_of_step import FACTOR, LAYER_FACTOR, Autopsy, Cause, Instead, Layer, Point, Sample
from safestep.tools.autopsy.samples import outstanding, samples_of, without
from safestep.tools.autopsy.step_to_examine import Scene
from safestep.tools.diagnostics import ExactRadius

_MOST_CLASSES, _MOST_SAMPLES = 20_000, 256
"""Up to which the exact radius is looked for: above, a sample takes 0.1 s and more; and on how many samples."""
_POINTS = 41


def autopsy(scene: Scene) -> Autopsy:
    r"""Return what carried a step too far: its length, its batch, or one layer.

    Equation:
        Each suspect is left out and the step taken again: the first with ``r / r' >= 5`` is the cause. They are: a
        layer's weights, where they are larger than the others', put to their scale; the part of one layer in ``p``
        (here 15 times), if it carries an ordinary batch's step as well; the batch, with an ordinary one in its place;
        the samples that stand out. None of these: the length as a whole.

    The steps are taken by copies of the optimizers and undone: model, optimizer and every random generator are bit for
    bit as before. It takes about ten forwards for each layer.

    Args:
        scene: the model and the optimizer before the step, its batch and the loss.

    Returns:
        The cause, what speaks for it in sentences, and the numbers.

    Raises:
        MeasurementError: if loss or step are not finite, the optimizer has no state, or r cannot be measured.

    Example:
        >>> from torch import nn
        >>> model = nn.Linear(2, 3)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=100.0)
        >>> batch = torch.eye(2), torch.tensor([0, 2])
        >>> def loss(model, batch):
        ...     return nn.functional.cross_entropy(model(batch[0]), batch[1])
        >>> autopsy(Scene(model=model, optimizer=sgd, batch=batch, loss=loss)).cause
        <Cause.LENGTH: 'length'>

    Note:
        r is exact to first order, on the batch alone. Clipping belongs into ``Scene.clip``. A wrong batch that does not
        move the logits several times farther (shuffled labels, say) has no such r, and is not found; without an
        ordinary batch nor is one that is wrong as a whole. Gradients that many processes average are not seen: run it
        on one of them.
    """
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as told, untouched(scene.model, trained(scene)):
        warnings.simplefilter("always")
        found = _examined(scene, notes)
    notes += dict.fromkeys(str(one.message) for one in told if issubclass(one.category, SafestepWarning))
    return Autopsy(**found, notes=tuple(notes))


def trained(scene: Scene) -> list[Tensor]:
    """Return the parameters of the optimizers that may move."""
    return [parameter for one in scene.optimizers for parameter in parameters_of(one) if parameter.requires_grad]


def _examined(scene: Scene, notes: list[str]) -> dict[str, Any]:
    with scene.step(scene.batch) as (trial, step):
        radius, ratio = _first(trial.forwards, step, SoftmaxRadius(method="exact"), *_curvatures(scene))
        softmax, size = isinstance(radius, SoftmaxRadius), step.length
        ratios = _ratios(scene, trial.forwards, step, ratio, notes, softmax=softmax)
        samples = samples_of(step, trial.forwards, softmax=softmax)
        layers = _layers(scene, trial.forwards, step, radius)
        curve = _curve(scene, trial.forwards, step, ratio)
    instead = list(_instead(scene, radius, ratio, layers, samples, notes))
    decisive = next((one for one in instead if one.explains(ratio)), None)
    start, end = curve[0], min(curve, key=lambda point: abs(point.t - 1.0))
    cause = decisive.cause if decisive else Cause.LENGTH
    if ratio <= 1.0 or (decisive is None and ratio < FACTOR and end.loss <= start.loss):
        cause = Cause.NONE
    return {
        "cause": cause,
        "findings": tuple(findings(cause, ratio, size, layers, samples, instead, (start, end), softmax=softmax)),
        "ratio": ratio,
        "ratios": ratios,
        "step_length": size,
        "rates": tuple(float(group.get("lr", math.nan)) for one in scene.optimizers for group in one.param_groups),
        "layers": tuple(layers),
        "samples": tuple(samples),
        "instead": tuple(instead),
        "curve": tuple(curve),
    }


def _instead(
    scene: Scene, radius: Radius, ratio: float, layers: Sequence[Layer], samples: Sequence[Sample], notes: list[str]
) -> Iterator[Instead]:
    """Take steps in the place of this one, each without a suspect: the first to make r much smaller has the cause."""
    name, times = excess({layer.name: layer.gain for layer in layers})
    if times >= FACTOR:
        parameters = [q for q in layers_of(scene.model, trained(scene))[name] if q.ndim > 1]
        with untouched(scene.model, trained(scene)), torch.no_grad():
            for parameter in parameters:
                parameter.div_(times)
            words = f"with the weights of layer {name} at the scale of the others', divided by {times:.3g}"
            yield Instead(Cause.LAYER, words, _again(scene, scene.batch, radius)[0])
    top = min(layers, key=lambda layer: layer.without)
    ordinary = [_again(scene, batch, radius, leave=top.name) for batch in scene.ordinary]
    words = f"without the part of layer {top.name}"
    by_layer = [Instead(Cause.LAYER, words, top.without, LAYER_FACTOR)] if len(layers) > 1 else []
    by_batch = []
    if ordinary:
        whole, rest = (median(ratios) for ratios in zip(*ordinary, strict=True))
        by_batch = [Instead(Cause.BATCH, "on an ordinary batch", whole)]
        if whole < LAYER_FACTOR * rest and by_batch[0].explains(ratio):  # the layer carries this batch's step alone
            yield by_batch.pop()
    yield from by_layer
    yield from by_batch
    if left_out := outstanding(samples):
        rest_of = without(scene.batch, left_out, len(samples))
        try:
            found, _ = _again(scene, rest_of, radius, count=len(samples) - len(left_out))
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            notes.append(f"the batch could not be taken without some of its samples: {first_line(error)}")
        else:
            yield Instead(Cause.BATCH, f"without {numbered(left_out)} of {len(samples)}", found)


def _again(scene: Scene, batch: Any, radius: Radius, *, leave: str = "", count: int = 0) -> tuple[float, float]:
    """Return r of the step on another batch, and of this step without the part of a layer.

    Raises:
        ValueError: if the batch has another number of samples than expected.
    """
    with scene.step(batch) as (trial, step):
        whole = measured(radius, step, trial.forwards)
        seen = sum(next(iter(one.heads)).shape[0] for one in trial.forwards.kept)
        if count and seen != count:
            raise ValueError(f"{seen} samples instead of {count}: loss(model, batch) takes no part of a batch")
        if not leave:
            return whole, whole
        left = set(layers_of(scene.model, step.start)[leave])
        stay = [parameter for parameter in step.start if parameter not in left]
        ends = {parameter: parameter.detach().clone() for parameter in step.start}
        return whole, measured(radius, part_of(step, ends, stay), trial.forwards)


def _curvatures(scene: Scene) -> tuple[Radius, Radius]:
    return CurvatureRadius(), HessianRadius(lambda: scene.loss(scene.model, scene.batch))


def _first(forwards: Forwards, step: Step, *radii: Radius) -> tuple[Radius, float]:
    """Return the first radius that can measure the step, and r."""
    for radius in radii[:-1]:
        try:
            return radius, measured(radius, step, forwards)
        except MeasurementError:
            continue
    return radii[-1], measured(radii[-1], step, forwards)


def measured(radius: Radius, step: Step, forwards: Forwards) -> float:
    """Return r of a step, at whose end the model stands."""
    return radius.measure(Proposal(step, forwards), None)[0].ratio


def _ratios(
    scene: Scene, forwards: Forwards, step: Step, ratio: float, notes: list[str], *, softmax: bool
) -> dict[str, float]:
    """Return r of the whole step by every radius; a note where one of them cannot be measured."""
    found = dict.fromkeys(("exact", "largest", "mean", "curvature"), math.nan)

    def note(name: str, measure: Callable[[], float]) -> None:
        try:
            found[name] = measure()
        except MeasurementError as error:
            notes.append(f"r by {name} could not be measured: {error}")

    def exact() -> float:
        classes = max(one.heads[0].shape[-1] for one in forwards.kept)
        if classes > _MOST_CLASSES:
            raise MeasurementError(f"{classes} classes: zeros are looked for with up to {_MOST_CLASSES}")
        report = StepReport.of(Reading(0, ratio, "exact"), Status.WATCHED, step.length, 1.0, 1.0, math.nan, ())
        found = float(ExactRadius(_MOST_SAMPLES)(step, forwards, report).get("exact_ratio", math.nan))
        if math.isnan(found):
            raise MeasurementError(f"the nearest zero is not certain on the {_MOST_SAMPLES} samples that move farthest")
        return found

    if softmax:
        found["largest"] = ratio
        note("exact", exact)
        note("mean", lambda: measured(SoftmaxRadius(method="exact", over="mean"), step, forwards))
    note("curvature", lambda: _first(forwards, step, *_curvatures(scene))[1])
    return found


def _layers(scene: Scene, forwards: Forwards, step: Step, radius: Radius) -> list[Layer]:
    """Return every layer with r of its part of the step alone, and of the step without it."""
    ends = {parameter: parameter.detach().clone() for parameter in step.start}
    layers, found = layers_of(scene.model, ends), []
    gain = gains({name: [step.start[q] for q in parameters] for name, parameters in layers.items()}, scene.model)
    for name, own in layers.items():
        others = [parameter for parameter in ends if parameter not in set(own)]
        alone, rest = (measured(radius, part_of(step, ends, moving), forwards) for moving in (own, others))
        size = length(step.start[parameter] for parameter in own)
        moved = length(ends[parameter] - step.start[parameter] for parameter in own)
        found.append(Layer(name, size, moved, gain[name], alone, rest))
    put(ends, ends)
    return found


def _curve(scene: Scene, forwards: Forwards, step: Step, ratio: float) -> list[Point]:
    """Return the loss along the step, from well inside the boundary to beyond the end."""
    ends = {parameter: parameter.detach().clone() for parameter in step.start}
    boundary = min(max(1.0 / ratio, 1e-6), 10.0) if 0.0 < ratio < math.inf else 1.0
    low, high = math.log10(min(boundary, 1.0) / 30), math.log10(1.5 * max(boundary, 1.0))
    grid = [10 ** (low + (high - low) * place / (_POINTS - 1)) for place in range(_POINTS)]
    batches, found = [scene.batch, *scene.ordinary[:1]], []
    for t in sorted([0.0, 1.0, *grid]):
        with torch.no_grad(), unheard():
            for parameter, start in step.start.items():
                torch.lerp(start, ends[parameter], t, out=parameter.detach())
            losses = []
            for batch in batches:
                if len(forwards.kept) == 1:  # the dropout masks of training
                    forwards.kept[0].generators.restore()
                losses.append(float(scene.loss(scene.model, batch)))
        found.append(Point(t, *losses))
    put(ends, ends)
    return found
