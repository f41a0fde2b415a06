"""The panels of gaps: what is beyond the frame lies on its edge, what has no rate above "none"."""

from __future__ import annotations

import math

import pytest

from safestep.plots import GapLine, gap_panels

PLAIN = GapLine("", "plain", [(1.0, 0.0), (10.0, 5.0), (100.0, math.inf)])
CAP = GapLine("curvature", "cap", [(1.0, -0.5), (10.0, 0.2), (100.0, -1e6)])
PIN = GapLine("curvature", "pin", [(None, 0.3)])


def marks(ax):
    return {
        line.get_marker(): (line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if len(line.get_xdata()) == 1
    }


def ticks(ax):
    ax.figure.canvas.draw()
    return [label.get_text() for label in ax.get_xticklabels()]


def test_a_panel_a_case_in_one_frame():
    figure = gap_panels({"one": [PLAIN, CAP], "two": [CAP, PIN], "three": [PLAIN]}, x="rate", title="Gaps")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["one", "two", "three"]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in figure.axes}) == 1
    (legend,) = figure.legends
    assert {"plain", "curvature", "cap", "pin", "leaves the frame"} < {text.get_text() for text in legend.get_texts()}


def test_what_is_beyond_the_frame_lies_on_its_edge():
    (ax,) = gap_panels({"one": [PLAIN, CAP]}, x="rate").axes
    low, high = ax.get_ylim()
    assert marks(ax)["^"] == (100.0, high)
    assert marks(ax)["v"] == (100.0, low)
    assert all(math.isfinite(y) for line in ax.lines for y in line.get_ydata())


def test_what_has_no_rate_stands_right_of_all_rates():
    (ax,) = gap_panels({"one": [CAP, PIN]}, x="rate").axes
    place, gap = marks(ax)["D"]
    assert (place > 100.0, gap) == (True, 0.3)
    assert ticks(ax) == ["1", "10", "100", "none"]
    assert ticks(gap_panels({"one": [CAP]}, x="target").axes[0]) == ["1", "10", "100"]


@pytest.mark.parametrize("panels", [{}, {"one": []}])
def test_without_a_line_there_is_an_empty_picture(panels):
    assert len(gap_panels(panels, x="rate").axes) == 1


def test_of_many_rates_few_have_a_number_and_one_line_can_be_ours():
    many = [GapLine(name, "cap", [(10.0**k, 0.0) for k in range(-4, 5)]) for name in ("theirs", "ours")]
    figure = gap_panels({"one": many}, x="rate", ours="ours")
    assert ticks(figure.axes[0]) == ["10⁻⁴", "0.01", "1", "100", "10⁴"]
    colours = [line.get_color() for line in figure.axes[0].lines if len(line.get_xdata()) > 1]
    assert colours == ["#D55E00", "#0072B2"]
    assert "cap" not in {text.get_text() for text in figure.legends[0].get_texts()}
