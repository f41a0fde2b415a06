"""The pictures of a post-mortem show what was measured, and can be read whatever it was."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from safestep.plots import layer_ratios, loss_along_step, sample_ratios
from safestep.plots.panel import panel, single_figure
from safestep.tools.autopsy import Autopsy, Cause, Layer, Sample
from safestep.tools.autopsy.outcome_of_step import Point


def made(ratio=4.0, layers=3, scale=1.0, ordinary=2.0) -> Autopsy:
    return Autopsy(
        cause=Cause.LENGTH,
        findings=(),
        ratio=ratio,
        ratios={"largest": ratio},
        step_length=1.0,
        rates=(0.1,),
        layers=tuple(Layer(f"block.{i}.weights", 1.0, 1.0, 1.0, ratio / (i + 1), 0.5) for i in range(layers)),
        samples=tuple(Sample(place, ratio / (place + 1)) for place in range(8)),
        instead=(),
        curve=tuple(Point(t, scale * (1 + t * t), ordinary) for t in (0.0, 0.01, 0.1, 0.25, 0.5, 1.0, 1.5)),
    )


def test_the_loss_along_the_step_and_its_boundary_are_where_they_are(legend):
    ax = loss_along_step(made())
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert lines["its batch"] == [[p.t, p.loss] for p in made().curve[1:]]
    assert lines["an ordinary batch"] == [[p.t, 2.0] for p in made().curve[1:]]
    assert [x for x, _ in lines["the step, r = 4"]] == [1.0, 1.0]
    (band,) = ax.patches
    assert band.get_x() == 0.25
    assert "an ordinary batch" not in legend(loss_along_step(made(ordinary=math.nan)))


def test_layers_and_samples_are_dots_at_their_ratios():
    dots = {line.get_label(): list(line.get_xdata()) for line in layer_ratios(made()).lines}
    assert dots["its part alone"] == [4.0, 2.0, pytest.approx(4 / 3)]
    assert dots["the step without it"] == [0.5] * 3
    dots = {line.get_label(): list(line.get_ydata()) for line in sample_ratios(made()).lines}
    assert dots["a sample"] == [4.0 / (place + 1) for place in range(8)]


def test_of_many_layers_those_that_go_farthest_are_drawn_in_their_order():
    ax = layer_ratios(replace(made(), layers=tuple(reversed(made(layers=40).layers))))
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert labels == [f"block.{place}.weights" for place in reversed(range(12))]


@pytest.mark.parametrize("ratio", [1e-6, 4.0, 1e6, math.inf, math.nan])
@pytest.mark.parametrize("draw", [loss_along_step, layer_ratios, sample_ratios])
def test_whatever_was_measured_can_be_read(draw, ratio, readable):
    readable(draw(made(ratio=ratio, layers=20), ax=panel(single_figure())).figure)


@pytest.mark.parametrize("scale", [1e-4, 1e12, math.inf])
def test_any_loss_can_be_read(scale, readable):
    readable(loss_along_step(made(scale=scale), ax=panel(single_figure())).figure)
