"""The pictures of a benchmark show the numbers of its records."""

from __future__ import annotations

import pytest
from matplotlib.colors import to_hex

from safestep.bench.pictures import draw, overhead, scale
from safestep.plots import style

FOUND = {"device": "CPU: a fast one", "threads": 2, "torch": "2.x"}


def row(method, ratio, situation="inside", **more):
    return {
        "about": "a model, of some size",
        "method": method,
        "situation": situation,
        "ratio_median": ratio,
        "ratio_low": ratio - 0.02,
        "ratio_high": ratio + 0.05,
        "peak_ratio": 1.25,
        "flag": "",
        **more,
    }


def results(rows, bench="overhead"):
    return {"bench": bench, "settings": {"rounds": 20}, "environment": FOUND, "rows": rows}


def words(figure):
    return [text.get_text() for ax in figure.axes for text in (*ax.texts, *ax.get_yticklabels())]


def test_each_row_has_its_dot_and_its_number():
    rows = [row("plain step", 1.0), row("clip_grad_norm_", 1.03), row("exact", 1.5, "capped", flag="not so")]
    (ax,) = overhead(results(rows)).axes
    marks = [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if line.get_marker() == "o"]
    assert marks == [(pytest.approx(3.0), 0), (pytest.approx(50.0), 1)]
    bars = [list(line.get_xdata()) for line in ax.lines if line.get_marker() != "o" and line.get_ydata()[0] >= 0]
    assert [pytest.approx([1.0, 8.0]), pytest.approx([48.0, 55.0])] == [bar for bar in bars if bar != [0, 0]]
    assert words(ax.figure) == ["+3.0 %", "+50 % (!)", "clip_grad_norm_", "exact, capped"]


def test_models_stand_side_by_side_and_inside_is_hollow():
    rows = [row("exact", 1.5), row("exact", 1.6, "capped"), row("exact", 2.0, about="another, larger")]
    left, right = overhead(results(rows)).axes
    faces = [line.get_markerfacecolor() for line in left.lines if line.get_marker() == "o"]
    assert faces == ["white", style.COLOURS["fixed"]]
    assert (left.get_title(loc="left"), right.get_title(loc="left")) == ("a model, of some size", "another, larger")


def test_growth_has_a_panel_for_each_axis_and_a_curve_for_each_contestant():
    rows = [
        row(method, 1.0 + place / 10, axis=axis, size=size)
        for axis in ("batch", "classes")
        for place, size in enumerate((8, 2, 32))
        for method in ("plain step", "probe", "tiered")
    ]
    figure = scale(results(rows, "scale"))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["sequences in a batch", "classes"]
    for ax in figure.axes:
        curves = {to_hex(line.get_color()).upper(): line for line in ax.lines if line.get_marker() == "o"}
        assert curves.keys() == {style.COLOURS["cap"], style.COLOURS["pin"]}
        for line in curves.values():
            assert list(line.get_xdata()) == [2, 8, 32]
            assert list(line.get_ydata()) == pytest.approx([10.0, 0.0, 20.0])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["probe, inside", "tiered, inside"]


def test_what_was_not_measured_is_not_drawn_and_an_old_picture_of_it_goes(tmp_path):
    rows = [row("exact", 1.0) | {"ratio_median": None}]
    (tmp_path / "overhead.png").write_bytes(b"old")
    assert [file.name for file in draw(results(rows), tmp_path)] == ["memory.png"]
    assert not (tmp_path / "overhead.png").exists()
    assert draw(results([]), tmp_path) == []
    assert draw(results([], "scale"), tmp_path) == []
