"""The picture of a suggested learning rate."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import safestep
from safestep.plots import ratio_over_rates
from safestep.plots.panel import panel, single_figure
from safestep.tools import LearningRate
from safestep.tools.learning_rate import Outcome


@pytest.fixture
def found():
    model = torch.nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
    return safestep.suggest_lr(model, optimizer, lambda: F.cross_entropy(model(x), y).backward())


def without_answer(status, trials):
    lr = math.inf if status is Outcome.UNBOUNDED else math.nan
    return LearningRate(
        lr, (lr,), 0.1, (0.1,), trials[0][1] if trials else 0.0, 1.0, math.nan, status, False, trials=trials
    )


def lines(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def test_it_draws_on_the_axes_given_and_returns_them(found, ax):
    with pytest.warns(DeprecationWarning, match="ratio_over_rates"):
        assert found.plot(ax) is ax
    ax.figure.savefig(io.BytesIO())
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_xlabel() == "learning rate η"
    assert ax.get_ylabel().startswith("step ratio r")


@pytest.mark.parametrize("present", [1e-6, 0.9, 1.0, 1.2, 1e7])
def test_marks_and_boundary_lie_on_the_line_and_inside_the_frame(found, ax, title, present):
    found = replace(found, present_lr=present * found.lr, ratio=present * found.reached, target=found.reached)
    ratio_over_rates(found, ax=ax)
    drawn = lines(ax)
    assert list(drawn) == ["target", "proportional", "suggested", "present"]
    assert (drawn["suggested"].get_xdata()[0], drawn["suggested"].get_ydata()[0]) == (found.lr, found.reached)
    assert drawn["present"].get_xdata()[0] == found.present_lr
    assert set(drawn["target"].get_ydata()) == {found.target}
    for line in drawn.values():
        slope = line.get_ydata() / line.get_xdata()
        assert line is drawn["target"] or slope == pytest.approx(found.target / found.lr)
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    for name in ("suggested", "present"):
        assert left < drawn[name].get_xdata()[0] < right
        assert low < drawn[name].get_ydata()[0] < high
    assert title(ax) == f"The next step reaches r = 1 at the learning rate {found.lr:.3g}"


@pytest.mark.parametrize("present", [1e-4, 0.5, 0.97, 1.0, 1.03, 2.0, 1e4])
def test_no_label_covers_another_or_leaves_a_panel(found, present):
    ax = panel(single_figure())
    ratio_over_rates(replace(found, present_lr=present * found.lr, ratio=present * found.reached), ax=ax)
    ax.figure.canvas.draw()
    page = ax.figure.bbox
    labels = [text.get_window_extent() for text in ax.texts if text.get_gid() != "subtitle"]
    assert len(labels) == 3
    for i, box in enumerate(labels):
        assert page.x0 <= box.x0
        assert box.x1 <= page.x1
        assert not any(box.overlaps(other) for other in labels[:i])


def test_a_present_rate_of_zero_is_left_out(found, ax):
    ratio_over_rates(replace(found, present_lr=0.0, ratio=0.0), ax=ax)
    assert "present" not in lines(ax)
    assert "suggested" in lines(ax)


def test_groups_are_named(found, ax):
    ratio_over_rates(replace(found, lrs=(found.lr, 2 * found.lr)), ax=ax)
    assert ax.get_xlabel() == "learning rate η of the leading group"


@pytest.mark.parametrize(
    ("status", "trials", "says"),
    [
        (Outcome.UNREACHED, ((0.1, 0.3), (0.33, 0.3)), "none that was tried gives r = 1"),
        (Outcome.UNBOUNDED, ((0.1, 0.0),), "At any learning rate the next step stays inside"),
        (Outcome.NONFINITE, ((0.1, math.nan),), "The next step is not finite"),
        (Outcome.NONFINITE, (), "The next step is not finite"),
    ],
)
def test_where_there_is_no_answer_the_picture_says_so_and_draws_what_was_measured(status, trials, says, ax, title):
    ratio_over_rates(without_answer(status, trials), ax=ax)
    ax.figure.savefig(io.BytesIO())
    assert says in title(ax)
    drawn = lines(ax)
    assert "proportional" not in drawn
    seen = [(x, r) for x, r in trials if r > 0]
    assert list(zip(drawn["measured"].get_xdata(), drawn["measured"].get_ydata(), strict=True)) == seen
