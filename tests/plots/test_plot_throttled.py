"""The picture of an instrumented run, and those of a regression's data."""

from __future__ import annotations

import io

import pytest
import torch

from safestep.lab.affine_teacher import AffineTeacher
from safestep.lab.drift import DriftRun
from safestep.plots import affine_histogram, affine_scatter, throttled_run
from safestep.records.report import StepReport

TEACHER = AffineTeacher(samples=100)


@pytest.fixture(scope="module")
def runs():
    """One run that diverges, one that the secant law catches, one by the curvature."""
    found = {}
    for law in ("none", "secant", "curvature"):
        student = TEACHER.student(seed=1)
        DriftRun(law="none", steps=20, sharpness=False).train(student, TEACHER)
        found[law] = DriftRun(law=law, steps=30).train(student, TEACHER.drifted(gain=4.0))
    return found


def lines(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


@pytest.mark.parametrize("law", ["none", "secant", "curvature"])
def test_six_pictures_show_what_was_recorded(law, runs):
    run = runs[law]
    figure = run.plot(title="a drift")
    figure.savefig(io.BytesIO())
    loss, error, gradient, curvature, margin, alpha = map(lines, figure.axes)
    if law != "none":  # that one leaves the frame
        assert list(loss["loss"].get_ydata()) == run["loss"]
        assert list(error["error"].get_ydata()) == run["weight_error_fro"]
        assert list(gradient["gradient"].get_ydata()) == run["grad_norm"]
    assert set(curvature) == {"λₘₐₓ", "C, between two steps", "mean of C"}
    assert (
        list(curvature["C, between two steps"].get_ydata()) == run["curvature_proxy"][1:]
    )  # the first is 0: nothing to compare
    assert list(alpha["applied α"].get_ydata()) == run["alpha"]
    assert ("secant law" in alpha) == (law != "secant")
    assert set(margin) == {"raw ηλₘₐₓ", "applied αηλₘₐₓ", "2: SGD diverges above"}
    assert list(margin["2: SGD diverges above"].get_ydata()) == [2.0, 2.0]
    assert figure.get_suptitle() == "a drift"


@pytest.mark.parametrize("law", ["none", "secant", "curvature"])
def test_no_text_is_cut_or_covered(law, runs, readable):
    readable(runs[law].plot(title="a drift"))


def test_a_run_of_no_steps_has_six_empty_pictures():
    figure = throttled_run([])
    figure.canvas.draw()
    assert len(figure.axes) == 6
    assert [len(ax.lines) for ax in figure.axes] == [0, 0, 0, 0, 1, 0]  # the limit of the margin


def test_without_the_hessian_its_lines_are_left_out():
    run = DriftRun(steps=3, sharpness=False).train(TEACHER.student(), TEACHER)
    figure = run.plot()
    figure.canvas.draw()
    assert set(lines(figure.axes[3])) == {"C, between two steps", "mean of C"}
    assert set(lines(figure.axes[4])) == {"2: SGD diverges above"}


def test_reports_without_any_probe_are_drawn_empty(runs):
    from dataclasses import replace

    bare: list[StepReport] = [replace(report, extras={}) for report in runs["secant"]]
    figure = throttled_run(bare)
    figure.canvas.draw()
    assert not lines(figure.axes[0])


def test_every_answer_is_drawn_against_every_input(readable):
    x, y = TEACHER.data(torch.float64)
    figure = TEACHER.plot()
    figure.savefig(io.BytesIO())
    assert len(figure.axes) == 8
    readable(figure)
    for place, ax in enumerate(figure.axes):
        row, column = divmod(place, 4)
        dots, line = ax.lines
        assert list(dots.get_xdata()) == x[:, column].tolist()
        assert list(dots.get_ydata()) == y[:, row].tolist()
        (x0, x1), (y0, y1) = line.get_xdata(), line.get_ydata()
        assert (y1 - y0) / (x1 - x0) == pytest.approx(TEACHER.A[row][column])
        assert [ax.get_xlabel(), ax.get_ylabel()] == [
            f"x{'₁₂₃₄'[column]}" * (row == 1),
            f"y{'₁₂'[row]}" * (column == 0),
        ]


def test_the_line_goes_through_the_means():
    drifted = TEACHER.drifted(gain=3.0, bias=0.5)
    x, y = drifted.data(torch.float64)
    for place, ax in enumerate(drifted.plot().axes):
        row, column = divmod(place, 4)
        (x0, x1), (y0, y1) = ax.lines[1].get_xdata(), ax.lines[1].get_ydata()
        at_mean = y0 + (y1 - y0) * (x[:, column].mean() - x0) / (x1 - x0)
        assert float(at_mean) == pytest.approx(float(y[:, row].mean()), rel=1e-9)


def test_histograms_count_every_sample_x_on_top(readable):
    figure = TEACHER.plot_histogram()
    readable(figure)
    assert [ax.get_xlabel() for ax in figure.axes] == ["x₁", "x₂", "x₃", "x₄", "y₁", "y₂"]
    for ax in figure.axes:
        assert sum(bar.get_height() for bar in ax.patches) == 100
    heights = [ax.get_position().y0 for ax in figure.axes]
    assert min(heights[:4]) > max(heights[4:])


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 5), (12, 2)])
def test_teachers_of_any_shape_can_be_drawn(shape):
    outputs, inputs = shape
    x, y = torch.rand(20, inputs), torch.rand(20, outputs)
    affine_scatter(x, y, torch.ones(outputs, inputs), torch.zeros(outputs)).canvas.draw()
    affine_histogram(x, y).canvas.draw()
