"""Ends over rates: a run that is lost leaves the frame, tuned ones are levels, and ours lies on top."""

from __future__ import annotations

import math

import pytest
from matplotlib.colors import same_color

from safestep.plots import ends_over_rates, style

LINES = {
    "plain": [(0.1, 2.5), (1.0, 2.2), (10.0, math.inf), (100.0, math.nan)],
    "clip": [(0.1, 2.5), (1.0, 2.2), (10.0, 2.9), (100.0, 50.0)],
    "capped": [(0.1, 2.5), (1.0, 2.2), (10.0, 2.1), (100.0, 2.2)],
}


def drawn(ax, name):
    (line,) = (line for line in ax.lines if line.get_label() == name)
    return line


@pytest.fixture
def picture(ax):
    blue = {"capped": style.COLOURS["cap"]}
    return ends_over_rates(LINES, levels={"tuned": 2.15, "averaged": 2.05}, high=3.0, y="loss", ours=blue, ax=ax)


def test_every_run_is_where_it_ended_and_what_is_worse_than_the_frame_outside_it(picture):
    assert list(drawn(picture, "capped").get_ydata()) == [2.5, 2.2, 2.1, 2.2]
    low, high = picture.get_ylim()
    assert high == 3.0
    assert low < 2.05
    for name, inside in {"plain": 2, "clip": 3}.items():
        ends = drawn(picture, name).get_ydata()
        assert list(ends[:inside]) == [end for _, end in LINES[name][:inside]]
        assert all(high < end < 2 * high for end in ends[inside:])
    marks = [line.get_xdata()[0] for line in picture.lines if line.get_marker() == "^" and len(line.get_xdata()) == 1]
    assert marks == [10.0, 100.0]


def test_tuned_runs_are_levels_that_are_told_apart(picture):
    tuned, averaged = (drawn(picture, name) for name in ("tuned", "averaged"))
    assert set(tuned.get_ydata()) == {2.15}
    assert set(averaged.get_ydata()) == {2.05}
    assert tuned._unscaled_dash_pattern != averaged._unscaled_dash_pattern


def test_ours_is_broad_on_top_and_alone_in_its_colour(picture):
    ours, others = drawn(picture, "capped"), [drawn(picture, name) for name in ("plain", "clip")]
    assert ours.get_zorder() > max(line.get_zorder() for line in others)
    assert ours.get_linewidth() > max(line.get_linewidth() for line in others)
    assert same_color(ours.get_color(), style.COLOURS["cap"])
    assert len({line.get_color() for line in (ours, *others)}) == 3


def test_nothing_to_draw_is_an_empty_frame(ax):
    ends_over_rates({}, levels={}, high=3.0, y="loss", ours={}, ax=ax)
    assert ax.get_ylim()[1] == 3.0
