"""The pictures of what follows a drift: gathered from records, framed, explained."""

from __future__ import annotations

import math

import pytest

from safestep.plots import Drifted, drift_alphas, drift_losses, drifted_of
from safestep.plots.panel import panel, single_figure

NONE = Drifted("none", [[3.0, 180.0, 1e30, math.inf]], [[1.0] * 4])
SECANT = Drifted("secant", [[3.0, 180.0, 1e-3, 1e-9]], [[1.0, 0.17, 0.2, 0.21]])
CURVATURE = Drifted("curvature", [[3.0, 1.0, 1e-3, 1e-9]], [[0.17, 0.17, 0.2, 0.21]])


def drawn(draw, runs):
    figure = single_figure()
    ax = draw(runs, ax=panel(figure))
    figure.canvas.draw()
    return ax


def test_pieces_of_a_run_are_put_together_and_other_gains_left_out():
    line = {"kind": "drift", "run": "C", "law": "secant", "gain": 4.0, "seed": 0, "first_step": 0}
    records = [
        {**line, "loss": [1.0, 2.0], "alpha": [1.0, 0.5]},
        {**line, "loss": [3.0], "alpha": [0.25], "first_step": 2},
        {**line, "loss": [9.0], "alpha": [1.0], "seed": 1},
        {**line, "loss": [7.0], "alpha": [1.0], "gain": 2.0},
        {**line, "loss": [7.0], "alpha": [1.0], "run": "A", "law": "none"},
        {"kind": "epoch", "label": "x"},
    ]
    assert drifted_of(records, 4.0) == [Drifted("secant", [[1.0, 2.0, 3.0], [9.0]], [[1.0, 0.5, 0.25], [1.0]])]


@pytest.mark.parametrize("draw", [drift_losses, drift_alphas])
@pytest.mark.parametrize("seeds", [1, 3])
def test_every_law_is_explained_and_no_text_is_cut(draw, seeds, legend, readable):
    runs = [Drifted(run.law, run.losses * seeds, run.alphas * seeds) for run in (NONE, SECANT, CURVATURE)]
    ax = drawn(draw, runs)
    readable(ax.figure)
    words = ["no throttle"] * (draw is drift_losses) + ["secant law", "curvature on the batch"]
    words += [f"range of {seeds} seeds"] * (seeds > 1) + ["leaves the frame"] * (draw is drift_losses)
    assert sorted(legend(ax)) == sorted(words)


def test_a_throttled_peak_is_inside_the_frame_and_what_blows_up_is_not():
    low, high = drawn(drift_losses, [NONE, SECANT]).get_ylim()
    assert 180.0 < high < 1e30
    assert low < 1e-3


@pytest.mark.parametrize("seeds", [1, 3])
def test_alphas_leave_out_what_has_no_throttle(seeds):
    runs = [Drifted(run.law, run.losses * seeds, run.alphas * seeds) for run in (NONE, SECANT, CURVATURE)]
    ax = drawn(drift_alphas, runs)
    assert len(ax.lines) == 2
    assert len(ax.collections) == (3 if seeds > 1 else 0)  # two bands and their entry in the legend


def test_seeds_of_different_length_and_nothing_at_all_are_drawn():
    ax = drawn(drift_losses, [Drifted("none", [[1.0, math.nan], [1.0, 2.0, 4.0]], [[1.0, 1.0], [1.0] * 3])])
    assert len(ax.lines[0].get_xdata()) == 3
    assert not drawn(drift_losses, []).lines
    assert not drawn(drift_alphas, [NONE]).lines
