"""What is measured of the step that is examined: r of all of it and of its layers' parts, and the loss along it."""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from typing import Any

import torch
from torch import Tensor

from safestep.errors import MeasurementError, first_line
from safestep.radius import CurvatureRadius, HessianRadius, Radius, SoftmaxRadius
from safestep.recording.forwards import Forwards
from safestep.recording.mute import unheard
from safestep.recording.proposal import Proposal
from safestep.recording.step import Parameters, Step
from safestep.records.reading import Reading, Status
from safestep.records.report import StepReport
from safestep.tools.autopsy.layers import layers_of
from safestep.tools.autopsy.outcome_of_step import Layer, Point
from safestep.tools.autopsy.step_to_examine import Scene
from safestep.tools.diagnostics import ExactRadius

_MOST_CLASSES, _POINTS = 20_000, 41
"""Up to which the exact radius is looked for: above, a sample takes 0.1 s and more; and points of the curve."""


def ends_of(step: Step) -> Parameters:
    """Return where a step ends, where the model stands."""
    return {parameter: parameter.detach().clone() for parameter in step.start}


def part(step: Step, ends: Parameters, moving: Set[Tensor]) -> Step:
    """Return the part of a step that moves some parameters alone; the model stands at its end."""
    with torch.no_grad():
        for parameter, start in step.start.items():
            parameter.copy_(ends[parameter] if parameter in moving else start)
    part = Step(0, peers=step.peers)
    part.start |= step.start
    return part


def curvatures(scene: Scene, batch: Any) -> tuple[Radius, Radius]:
    """Return the curvature radius, and the one that any loss of a batch has."""
    return CurvatureRadius(), HessianRadius(lambda: scene.loss(scene.model, batch))


def first(forwards: Forwards, step: Step, notes: list[str], *radii: Radius) -> tuple[Radius, float]:
    """Return the first radius that can measure the step, and r; notes say why it is not by those before."""
    for radius in radii[:-1]:
        try:
            return radius, measured(radius, step, forwards)
        except MeasurementError as error:
            notes.append(f"r is not by {type(radius).__name__}: {first_line(error)}")
    return radii[-1], measured(radii[-1], step, forwards)


def measured(radius: Radius, step: Step, forwards: Forwards) -> float:
    """Return r of a step, at whose end the model stands."""
    return radius.measure(Proposal(step, forwards), None)[0].ratio


def ratios(
    scene: Scene, forwards: Forwards, step: Step, ratio: float, notes: list[str], *, softmax: bool
) -> dict[str, float]:
    """Return r of the whole step by every radius; a note where one of them cannot be measured."""

    def exact() -> float:
        classes = max(one.heads[0].shape[-1] for one in forwards.kept)
        if classes > _MOST_CLASSES:
            raise MeasurementError(f"{classes} classes: zeros are looked for with up to {_MOST_CLASSES}")
        report = StepReport.of(Reading(0, ratio, "exact"), Status.WATCHED, step.length, 1.0, 1.0, math.nan, ())
        found = ExactRadius()(step, forwards, report).get("exact_ratio", math.nan)
        if math.isnan(found):
            raise MeasurementError("no nearest zero is certain")
        return found

    found = {"largest": ratio} if softmax else {}
    measures: dict[str, Callable[[], float]] = {
        "curvature": lambda: first(forwards, step, notes, *curvatures(scene, scene.batch))[1]
    }
    if softmax:
        mean = SoftmaxRadius(method="exact", over="mean")
        measures = {"exact": exact, "mean": lambda: measured(mean, step, forwards), **measures}
    for name, measure in measures.items():
        try:
            found[name] = measure()
        except MeasurementError as error:
            notes.append(f"r by {name} could not be measured: {error}")
    return found


def layers(scene: Scene, forwards: Forwards, step: Step, ends: Parameters, radius: Radius) -> tuple[Layer, ...]:
    """Return every layer with r of its part of the step alone, and of the step without it."""
    found = []
    for name, own in layers_of(scene.model, ends).items():
        without_it = measured(radius, part(step, ends, ends.keys() - set(own)), forwards)
        alone = part(step, ends, set(own))
        found.append(Layer(name, alone.length, measured(radius, alone, forwards), without_it))
    return tuple(found)


def curve(scene: Scene, forwards: Forwards, step: Step, ends: Parameters, ratio: float) -> tuple[Point, ...]:
    """Return the loss along the step, from well inside the boundary to beyond the end."""
    boundary = min(max(1.0 / ratio, 1e-6), 10.0) if 0.0 < ratio < math.inf else 1.0
    low, high = math.log10(min(boundary, 1.0) / 30), math.log10(1.5 * max(boundary, 1.0))
    found = []
    for t in sorted([0.0, 1.0, *torch.logspace(low, high, _POINTS, dtype=torch.float64).tolist()]):
        losses = []
        with torch.no_grad(), unheard():
            for parameter, start in step.start.items():
                torch.lerp(start, ends[parameter], t, out=parameter.detach())
            for batch in (scene.batch, *scene.ordinary[:1]):
                if len(forwards.kept) == 1:  # the dropout masks of training
                    forwards.kept[0].generators.restore()
                losses.append(float(scene.loss(scene.model, batch)))
        found.append(Point(t, *losses))
    return tuple(found)
