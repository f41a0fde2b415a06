"""The picture of a post-mortem shows what was measured, and can be read whatever it was."""

from __future__ import annotations

import math

import pytest

from safestep.plots import loss_along_step
from safestep.plots.panel import panel, single_figure
from safestep.tools.autopsy import Autopsy, Cause
from safestep.tools.autopsy.outcome_of_step import Point


def made(ratio=4.0, scale=1.0, ordinary=2.0) -> Autopsy:
    return Autopsy(
        cause=Cause.LENGTH,
        findings=(),
        ratio=ratio,
        ratios={"largest": ratio},
        step_length=1.0,
        layers=(),
        samples=(),
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


@pytest.mark.parametrize("ratio", [1e-6, 4.0, 1e6, math.inf, math.nan])
def test_whatever_was_measured_can_be_read(ratio, readable):
    readable(loss_along_step(made(ratio=ratio), ax=panel(single_figure())).figure)


@pytest.mark.parametrize("scale", [1e-4, 1e12, math.inf])
def test_any_loss_can_be_read(scale, readable):
    readable(loss_along_step(made(scale=scale), ax=panel(single_figure())).figure)
