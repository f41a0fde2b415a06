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
def test_marks_and_boundary_lie_on_the_line_and_inside_the_frame(found, ax, legend, present):
    found = replace(found, present_lr=present * found.lr, ratio=present * found.reached, target=found.reached)
    ratio_over_rates(found, ax=ax)
    drawn = {label.partition(":")[0].partition(",")[0]: line for label, line in lines(ax).items()}
    assert list(drawn) == ["target", "r in proportion", "suggested", "present"]
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
    assert f"suggested: {found.lr:.3g}" in legend(ax)
    assert f"present: {found.present_lr:.3g}" in legend(ax)


@pytest.mark.parametrize("present", [1e-4, 0.97, 1.0, 2.0, 1e4])
def test_no_text_is_cut_or_covered(found, present, readable):
    found = replace(found, present_lr=present * found.lr, ratio=present * found.reached)
    readable(ratio_over_rates(found, ax=panel(single_figure())).figure)


def test_a_present_rate_of_zero_is_left_out(found, ax):
    ratio_over_rates(replace(found, present_lr=0.0, ratio=0.0), ax=ax)
    assert not any(label.startswith("present") for label in lines(ax))
    assert any(label.startswith("suggested") for label in lines(ax))


def test_groups_are_named(found, ax):
    ratio_over_rates(replace(found, lrs=(found.lr, 2 * found.lr)), ax=ax)
    assert ax.get_xlabel() == "learning rate η of the leading group"


@pytest.mark.parametrize(
    ("status", "trials"),
    [
        (Outcome.UNREACHED, ((0.1, 0.3), (0.33, 0.3))),
        (Outcome.UNBOUNDED, ((0.1, 0.0),)),
        (Outcome.NONFINITE, ((0.1, math.nan),)),
        (Outcome.NONFINITE, ()),
    ],
)
def test_where_there_is_no_answer_the_picture_says_so_and_draws_what_was_measured(status, trials, ax, legend):
    ratio_over_rates(without_answer(status, trials), ax=ax)
    ax.figure.savefig(io.BytesIO())
    assert f"measured, {status.value}" in legend(ax)
    drawn = lines(ax)
    assert "r in proportion" not in drawn
    seen = [(x, r) for x, r in trials if r > 0]
    dots = drawn[f"measured, {status.value}"]
    assert list(zip(dots.get_xdata(), dots.get_ydata(), strict=True)) == seen
