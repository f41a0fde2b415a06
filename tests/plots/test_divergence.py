"""The picture of a drift map: what the cells are coloured by, and what it says."""

from __future__ import annotations

import pytest

from safestep.plots import DriftMap, drift_maps, drift_maps_of

LINE = {
    "kind": "map", "label": "no throttle", "seed": 7, "rates": [0.01, 0.1, 1.0], "limit_rate": 0.5,
    "first_loss": [1.0, 1.0, 1.0],
}  # fmt: skip


def line(gain, diverged, peak, **changes):
    return {**LINE, "gain": gain, "diverged": diverged, "peak_loss": peak, **changes}


def test_cells_are_told_apart_by_what_became_of_them():
    flags = [False, False, True]
    (found,) = drift_maps_of([line(2.0, flags, [1.0, 1.5, "inf"]), line(1.0, [False] * 3, [1.0, 1.0005, 1.0])])
    assert found.gains == [1.0, 2.0]
    assert found.fates == [[0, 0, 0], [0, 1, 2]]
    assert found.share_diverged == 1 / 6


def test_of_several_starts_the_first_is_drawn():
    maps = drift_maps_of([line(1.0, [True] * 3, [9.0] * 3), line(1.0, [False] * 3, [1.0] * 3, seed=8)])
    assert [found.fates for found in maps] == [[[2, 2, 2]]]


def test_there_is_a_panel_a_law_with_its_share_and_the_line_of_theory(readable):
    rates, gains, limits = [0.01, 0.1, 1.0], [1.0, 2.0], [0.5, 0.125]
    lost = DriftMap("no throttle", rates, gains, limits, [[0, 0, 0], [0, 0, 2]])
    safe = DriftMap("curvature on the batch", rates, gains, limits, [[0, 0, 0], [0, 0, 0]])
    figure = drift_maps([lost, safe])
    readable(figure)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["no throttle: 16.7%", "curvature on the\nbatch: 0.0%"]
    for ax in figure.axes:
        assert list(ax.lines[0].get_xdata()) == limits
        assert list(ax.lines[0].get_ydata()) == gains
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["theory: ηγ²λ = 2", "never above its start", "diverges"]


@pytest.mark.parametrize("count", [1, 3, 5])
def test_any_number_of_laws_is_readable(count, readable):
    maps = [
        DriftMap(f"secant, order {i}", [0.01, 0.1, 1.0], [1.0, 2.0], [0.5, 0.1], [[0, 1, 2]] * 2) for i in range(count)
    ]
    figure = drift_maps(maps)
    readable(figure)
    assert len(figure.axes) == count
    assert [ax.get_xlabel() != "" for ax in figure.axes] == [i + 2 >= count for i in range(count)]
