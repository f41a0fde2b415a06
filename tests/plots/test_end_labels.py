"""Labels at the ends of curves: apart, inside, moved as little as possible."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

from safestep.plots.endlabels import End, label_ends, spread

sizes = st.floats(0.5, 3.0)
items = st.lists(st.tuples(st.floats(-50, 150), sizes), min_size=1, max_size=12)


@given(items)
def test_intervals_end_up_apart_inside_and_in_order(pairs):
    wanted, heights = map(list, zip(*pairs, strict=True))
    centres = spread(wanted, heights, 0.0, 100.0)
    placed = sorted(zip(centres, heights, strict=True))
    for (below, h), (above, k) in itertools.pairwise(placed):
        assert above - below >= (h + k) / 2 - 1e-9
    assert placed[0][0] - placed[0][1] / 2 >= -1e-9
    assert placed[-1][0] + placed[-1][1] / 2 <= 100 + 1e-9
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    assert all(centres[a] <= centres[b] for a, b in itertools.pairwise(order))


@given(items)
def test_intervals_that_are_apart_already_stay(pairs):
    heights = [height for _, height in pairs]
    wanted = list(itertools.accumulate(3.5 for _ in pairs))
    assert spread(wanted, heights, 0.0, 100.0) == pytest.approx(wanted)


@given(st.lists(st.floats(10, 90), min_size=2, max_size=4), st.lists(st.floats(-3, 3), min_size=4, max_size=4))
def test_no_other_place_that_keeps_order_and_distance_moves_less(wanted, shifts):
    wanted = sorted(wanted)
    heights = [2.0] * len(wanted)
    best = spread(wanted, heights, 0.0, 100.0)
    other = [centre + shift for centre, shift in zip(best, shifts, strict=False)]
    if all(b - a >= 2.0 for a, b in itertools.pairwise(other)) and other[0] >= 1.0 and other[-1] <= 99.0:
        cost = lambda centres: sum((c - w) ** 2 for c, w in zip(centres, wanted, strict=True))  # noqa: E731
        assert cost(best) <= cost(other) + 1e-9


def boxes(figure, labels):
    figure.canvas.draw()
    return [Text.get_window_extent(label) for label in labels]


def overlapping(found):
    return [(a, b) for a, b in itertools.combinations(found, 2) if a.y1 > b.y0 and b.y1 > a.y0]


@pytest.mark.parametrize("count", [1, 2, 7, 12, 30])
def test_labels_of_curves_that_end_together_do_not_overlap(ax, count):
    ax.set_xlim(0, 10)
    labels = label_ends(ax, [End(10, 0.5 + i * 1e-4, f"capped 0.{i:02}", "black") for i in range(count)], 10)
    found = boxes(ax.figure, labels)
    assert overlapping(found) == []
    frame = ax.get_window_extent()
    assert all(frame.y0 - 1 <= box.y0 and box.y1 <= frame.y1 + 1 for box in found)
    assert all(box.x1 <= frame.x1 + 1 for box in found)


def test_labels_stand_right_of_the_curves(ax):
    ax.set_xlim(0, 10)
    labels = label_ends(ax, [End(10, 0.2, "a", "black"), End(10, 0.8, "b", "black")], 10)
    edge = ax.transData.transform((10, 0))[0]
    assert all(box.x0 > edge for box in boxes(ax.figure, labels))


def test_a_label_that_has_room_is_level_with_its_curve(ax):
    ax.set_xlim(0, 10)
    labels = label_ends(ax, [End(10, 0.2, "a", "black"), End(10, 0.8, "b", "black")], 10)
    found = boxes(ax.figure, labels)
    for box, y in zip(found, (0.2, 0.8), strict=True):
        assert (box.y0 + box.y1) / 2 == pytest.approx(ax.transData.transform((0, y))[1], abs=1.0)


@pytest.mark.parametrize("y", [float("nan"), float("inf"), 1e300])
def test_a_curve_that_ends_nowhere_is_labelled_at_the_top(ax, y):
    ax.set_xlim(0, 10)
    (label,) = label_ends(ax, [End(10, y, "gone", "black")], 10)
    (box,) = boxes(ax.figure, [label])
    assert box.y1 == pytest.approx(ax.get_window_extent().y1, abs=1.0)


def test_labels_stay_apart_when_the_figure_is_resized_and_zoomed(ax):
    ax.set_xlim(0, 10)
    labels = label_ends(ax, [End(10, 0.1 * i, f"run {i}", "black") for i in range(9)], 10)
    assert overlapping(boxes(ax.figure, labels)) == []
    ax.figure.set_size_inches(5, 2.2)
    assert overlapping(boxes(ax.figure, labels)) == []
    ax.set_ylim(-100, 100)
    assert overlapping(boxes(ax.figure, labels)) == []


def test_nothing_to_label_leaves_the_axes_alone(ax):
    before = ax.get_xlim()
    assert label_ends(ax, [], 10) == []
    assert np.allclose(ax.get_xlim(), before)


def test_of_hundreds_of_labels_some_are_written_the_outermost_among_them(ax):
    ax.set(xlim=(0, 10), ylim=(0, 300))
    written = [label.get_text() for label in label_ends(ax, [End(10, i, str(i), "red") for i in range(300)], 10)]
    assert len(written) == 24
    assert written[:: len(written) - 1] == ["0", "299"]
