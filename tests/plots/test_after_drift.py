"""The pictures of what follows a drift: gathered from records, titled by what they show."""

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


def title(ax):
    return " ".join(ax.get_title(loc="left").split())


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


def test_the_losses_say_who_diverges_and_how_far_the_others_rise():
    assert title(drawn(drift_losses, [NONE, SECANT, CURVATURE])) == "No throttle: diverges; secant: ×60; curvature: ×1"


def test_a_throttled_peak_is_inside_the_frame_and_what_blows_up_is_not():
    low, high = drawn(drift_losses, [NONE, SECANT]).get_ylim()
    assert 180.0 < high < 1e30
    assert low < 1e-3


@pytest.mark.parametrize("seeds", [1, 3])
def test_alphas_leave_out_what_has_no_throttle(seeds):
    runs = [Drifted(run.law, run.losses * seeds, run.alphas * seeds) for run in (NONE, SECANT, CURVATURE)]
    ax = drawn(drift_alphas, runs)
    assert title(ax) == "First α: secant 1, curvature 0.17; at last 0.21"
    assert len(ax.lines) == 2
    assert len(ax.collections) == (2 if seeds > 1 else 0)


def test_seeds_of_different_length_and_nothing_at_all_are_drawn():
    drawn(drift_losses, [Drifted("none", [[1.0, math.nan], [1.0, 2.0, 4.0]], [[1.0, 1.0], [1.0] * 3])])
    assert title(drawn(drift_losses, [])) == "No run yet"
    assert title(drawn(drift_alphas, [NONE])) == "No throttled run yet"
