"""The picture of what control costs: a dot where the number is, nothing made up."""

from __future__ import annotations

import math

import pytest

from safestep.plots import slowdown, slowdowns_of
from safestep.plots.panel import panel, single_figure

ROW = {
    "student": "linear",
    "optimizer": "sgd",
    "batch": "full",
    "rate": "quiet",
    "law": "curvature",
    "slowdown": 1.02,
    "most_slowdown": 1.05,
    "held_share": 0.031,
}


@pytest.mark.parametrize("changes", [{"rate": "harsh"}, {"law": "none"}, {"slowdown": "nan"}])
def test_only_what_can_be_compared_is_drawn(changes):
    assert slowdowns_of([ROW | changes]) == []
    assert slowdowns_of([ROW]) == [ROW]


def dots(ax):
    return [line for line in ax.lines if len(line.get_xydata()) == 1]


def test_every_case_has_its_dot_and_its_share(legend):
    ax = slowdown([ROW, ROW | {"batch": "32", "slowdown": 0.9}, ROW | {"law": "secant"}])
    assert [line.get_xydata().tolist()[0] for line in dots(ax)] == [[1.02, 0.0], [0.9, 1.0], [1.02, 0.0]]
    assert [text.get_text() for text in ax.texts] == ["3.1 %", "3.1 %"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["linear, SGD, full", "linear, SGD, 32"]
    assert set(legend(ax)) == {"curvature law", "secant law", "more than allowed", "at the right: steps held"}


@pytest.mark.parametrize(("factor", "marker"), [(math.inf, ">"), ("inf", ">"), (1.6, ">"), (0.5, "<"), (1.0, "o")])
def test_what_leaves_the_frame_is_marked_at_its_edge(factor, marker):
    ax = slowdown([ROW | {"slowdown": factor}])
    (dot,) = dots(ax)
    assert dot.get_marker() == marker
    assert ax.get_xlim()[0] <= dot.get_xdata()[0] <= ax.get_xlim()[1]


def test_many_cases_are_readable(readable):
    rows = [
        ROW | {"student": student, "optimizer": optimizer, "batch": batch, "law": law}
        for student in ("linear", "classifier", "transformer")
        for optimizer in ("sgd", "adam")
        for batch in ("full", "32")
        for law in ("curvature", "secant")
    ]
    readable(slowdown(rows, ax=panel(single_figure())).figure)
