"""The picture of what control costs: a dot where the number is, a headline that says the worst, nothing made up."""

from __future__ import annotations

import math

import pytest

from safestep.plots import slowdown, slowdowns_of

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


def test_every_case_has_its_dot_and_its_share():
    ax = slowdown([ROW, ROW | {"batch": "32", "slowdown": 0.9}])
    drawn = [line.get_xydata().tolist()[0] for line in ax.lines if len(line.get_xydata()) == 1]
    assert drawn == [[1.02, 0.0], [0.9, 1.0]]
    assert [text.get_text() for text in ax.texts].count("3.1 %") == 2
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["linear, SGD, full", "linear, SGD, 32"]


@pytest.mark.parametrize(("factor", "marker"), [(math.inf, ">"), ("inf", ">"), (1.6, ">"), (0.5, "<"), (1.0, "o")])
def test_what_leaves_the_frame_is_marked_at_its_edge(factor, marker):
    ax = slowdown([ROW | {"slowdown": factor}])
    (dot,) = [line for line in ax.lines if len(line.get_xydata()) == 1]
    assert dot.get_marker() == marker
    assert ax.get_xlim()[0] <= dot.get_xdata()[0] <= ax.get_xlim()[1]


def test_the_headline_says_what_is_too_slow():
    title = " ".join(slowdown([ROW, ROW | {"batch": "32", "slowdown": 1.06}]).get_title(loc="left").split())
    assert title == "1 of 2 quiet cases take more steps than allowed; worst linear, SGD, 32"
