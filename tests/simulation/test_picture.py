"""The picture of a simulation, whatever became of it."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from safestep.descent import PLANE, Beale, Function, Gaussian, Quadratic, simulate
from safestep.simulation.picture import animate, draw


def sgd(rate):
    return partial(torch.optim.SGD, lr=rate)


def explained(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_plane_shows_traces_and_the_loss_with_its_law():
    figure = draw(simulate(PLANE, noise=Gaussian(), runs=200, traces=4), "SGD")
    figure.canvas.draw()
    assert explained(figure.axes[0]) == ["SGD", "start", "minimum"]
    assert explained(figure.axes[1]) == ["SGD", "exact law", "quantiles of the runs"]
    left, right = (ax.get_position() for ax in figure.axes)
    assert left.y1 == pytest.approx(right.y1)
    assert left.x1 < right.x0


def test_a_single_noisy_run_is_not_held_against_the_law():
    assert "exact law" not in explained(draw(simulate(PLANE, noise=Gaussian()), "SGD").axes[1])
    assert "exact law" in explained(draw(simulate(PLANE), "SGD").axes[1])


@pytest.mark.parametrize("variables", [1, 3])
def test_other_than_two_variables_show_the_loss_alone(variables):
    bowl = Quadratic((1.0,) * variables, start=(1.0,) * variables)
    assert len(draw(simulate(bowl, runs=2), "SGD").axes) == 1


def test_a_descent_of_which_nothing_finite_is_left_is_drawn_and_says_so():
    for objective, runs in ((PLANE, 1), (PLANE, 30), (Beale(), 30)):
        ensemble = simulate(objective, sgd(100.0), noise=Gaussian(), steps=400, runs=runs, traces=min(8, runs))
        assert ensemble.moments.finite[-1] == 0
        figure = draw(ensemble, "SGD")
        assert {"leaves the frame", "last finite point"} & set(explained(figure.axes[0]))
        assert explained(figure.axes[1])[-1] == "leaves the frame"


def test_zero_steps_and_no_traces_are_drawn():
    assert explained(draw(simulate(PLANE, steps=0), "SGD").axes[1])[0] == "SGD"
    assert not any(len(line.get_xdata()) > 1 for line in draw(simulate(PLANE, runs=9, traces=0), "SGD").axes[0].lines)


def test_what_bends_down_has_no_minimum_to_show():
    down = draw(simulate(Quadratic((2.0, -4.0), start=(1.0, 1.0)), steps=5), "SGD")
    assert "minimum" not in explained(down.axes[0])
    assert "minimum" in explained(draw(simulate(PLANE, steps=5), "SGD").axes[0])


def test_a_function_is_only_asked_for_rows():
    def picky(x):
        assert x.dim() == 2
        return x.square().sum(-1)

    assert len(draw(simulate(Function(picky, start=(1.0, 1.0)), steps=5), "SGD").axes) == 2


@pytest.mark.parametrize("suffix", [".gif", ".html"])
def test_an_animation_is_saved(tmp_path, suffix):
    path = tmp_path / f"trace{suffix}"
    animate(simulate(PLANE, steps=2), "SGD", path)
    assert path.stat().st_size > 1000
