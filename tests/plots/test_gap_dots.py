"""The dots of gaps: the best method on top, of equal ones that of the better worst run, and lost runs on the edge."""

from __future__ import annotations

import math

from matplotlib.colors import same_color

from safestep.plots import gap_dots, style

GAPS = {
    "unsure": [0.0, 5.0, 0.0],
    "sure": [0.0, 1.0, 0.0],
    "lost": [3.0, math.inf, math.inf],
    "good": [-1.0, -2.0, 0.0],
}


def test_the_order_is_that_of_medians_and_then_of_the_worst_runs_not_of_who_was_named_first():
    (ax,) = gap_dots({"digits": GAPS}).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["good", "sure", "unsure", "lost"]


def test_a_lost_run_is_a_triangle_on_the_right_edge_and_every_other_a_dot():
    (ax,) = gap_dots({"digits": GAPS}).axes
    edge = ax.get_xlim()[1]
    drawn = [(line.get_marker(), line.get_xdata()[0]) for line in ax.lines if len(line.get_xdata()) == 1]
    assert [place for marker, place in drawn if marker == ">"] == [edge, edge]
    assert sorted(place for marker, place in drawn if marker == "o") == [
        -2.0,
        -1.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        1.0,
        3.0,
        5.0,
    ]
    assert [place for marker, place in drawn if marker == "|"] == [-1.0, 0.0, 0.0, edge]


def test_ours_has_a_colour_of_its_own():
    (ax,) = gap_dots({"digits": GAPS}, ours=["good"]).axes
    coloured = {line.get_ydata()[0] for line in ax.lines if same_color(line.get_color(), style.COLOURS["cap"])}
    assert coloured == {0}
