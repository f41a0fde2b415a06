"""Pictures of a guard's own history, and of accuracy over seeds."""

from __future__ import annotations

import io
import math
import subprocess
import sys

import pytest
import torch

import safestep
from safestep.plots import accuracy_over_seeds, effective_lrs, step_ratios
from safestep.plots.panel import panel, single_figure

PICTURES = [step_ratios, effective_lrs]


@pytest.fixture
def history():
    """A run that is capped at first and then is not."""
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=50.0)
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
    with safestep.attach(model, optimizer) as guard:
        for step in range(30):
            optimizer.param_groups[0]["lr"] = 50.0 * 0.7**step
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        return guard.history


@pytest.mark.parametrize("picture", PICTURES)
def test_draws_on_the_axes_given_and_returns_them(picture, history, ax):
    assert picture(history, ax=ax) is ax
    ax.figure.savefig(io.BytesIO())
    assert all(math.isfinite(edge) for edge in (*ax.get_xlim(), *ax.get_ylim()))


def test_ratios_show_what_was_proposed_and_what_was_taken(history, ax):
    step_ratios(history, ax=ax)
    lines = {line.get_label(): line for line in ax.lines}
    measured = [report for report in history if not report.predicted]
    guesses = [guess for guess in lines["predicted"].get_ydata() if not math.isnan(guess)]
    assert 0 < len(measured) < 30
    assert guesses == [report.predicted_ratio for report in history if report.predicted]
    for line, column in {"proposed": "ratio", "taken": "applied_ratio"}.items():
        assert list(lines[line].get_xdata()) == [report.step for report in measured]
        assert list(lines[line].get_ydata()) == [getattr(report, column) for report in measured]
    targets = list(lines["target"].get_ydata())
    assert {report.target for report in measured} <= set(targets)
    assert targets[0] == 1.0 > targets[-1]  # it follows the rate


def test_rates_show_what_was_given_and_what_took_effect(history, ax):
    effective_lrs(history, ax=ax)
    lines = {line.get_label(): line for line in ax.lines}
    assert list(lines["given"].get_ydata()) == [rates[0] for rates in history["lrs"]]
    assert list(lines["effective"].get_ydata()) == history["effective_lr"]


def test_of_a_watched_run_only_what_was_taken_is_drawn(ax):
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e4)
    with safestep.attach(model, optimizer, radius=safestep.SoftmaxRadius(), policy=safestep.Watch()) as guard:
        torch.nn.functional.cross_entropy(model(torch.randn(8, 4)), torch.randint(0, 3, (8,))).backward()
        optimizer.step()
    step_ratios(guard.history, ax=ax)
    assert {line.get_label() for line in ax.lines if not line.get_label().startswith("_")} == {"taken"}


@pytest.mark.parametrize("picture", PICTURES)
def test_an_empty_history_gives_an_empty_picture(picture, ax):
    picture(safestep.History(), ax=ax)
    ax.figure.canvas.draw()
    assert all(not len(line.get_xdata()) for line in ax.lines)


@pytest.mark.parametrize("picture", PICTURES)
def test_no_text_is_cut_or_covered(picture, history, readable):
    readable(picture(history, ax=panel(single_figure())).figure)


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e300, 0.0])
def test_steps_that_are_not_finite_leave_a_readable_picture(picture, bad, history, ax):
    from dataclasses import replace

    reports = list(history)
    reports[3] = replace(reports[3], ratio=bad, applied_ratio=0.0, effective_lrs=(bad,), status=safestep.Status.UNDONE)
    picture(reports, ax=ax)
    ax.figure.canvas.draw()
    low, high = ax.get_ylim()
    assert 0 < low < high < math.inf
    assert high / low <= 1.01e12


ROWS = [
    {"label": label, "policy": policy, "seed": seed, "final_acc": acc + seed / 100, "diverged": policy == "fixed"}
    for label, policy, acc in (("fixed 5.0", "fixed", 0.1), ("capped 5.0", "cap", 0.9))
    for seed in range(3)
]


def test_seeds_are_dots_with_their_median_in_numbers(ax, legend):
    assert accuracy_over_seeds(ROWS, ax=ax) is ax
    dots = [line for line in ax.lines if line.get_marker() in {"o", "x"} and len(line.get_xdata())]
    assert [round(line.get_xdata()[0], 2) for line in dots] == [0.1, 0.11, 0.12, 0.9, 0.91, 0.92]
    assert [line.get_marker() for line in dots] == ["x"] * 3 + ["o"] * 3
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["fixed 5.0", "capped 5.0"]
    assert legend(ax) == ["seed", "diverged", "median"]
    assert [text.get_text() for text in ax.texts] == ["11.0 %", "91.0 %"]


@pytest.mark.parametrize("runs", [1, 2, 4])
def test_names_and_medians_have_room_in_a_panel(runs, readable):
    rows = [{**row, "label": f"long {row['label']} {run}"} for run in range(runs) for row in ROWS[: 3 + runs]]
    readable(accuracy_over_seeds(rows, ax=panel(single_figure())).figure)


def test_without_matplotlib_the_error_names_the_extra():
    code = "import sys; sys.modules['matplotlib'] = None\nimport safestep\nimport safestep.plots"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "MissingExtraError" in done.stderr
    assert "its extra 'plots'" in done.stderr


def test_importing_the_plots_does_not_choose_a_backend():
    code = "import sys, safestep.plots; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
