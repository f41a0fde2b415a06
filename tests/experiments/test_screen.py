"""What is shown: lines for a pipe, a bar for a terminal, one table for rows and another for seeds."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from experiments.counting import Counting
from safestep.experiments import NAMES, find
from safestep.experiments.report.screen import console, progress, say, tell
from safestep.experiments.report.tables import cell

COUNTING = Counting()


def shown(rows, experiment=COUNTING, width=100) -> str:
    screen = Console(file=io.StringIO(), width=width)
    name = experiment.name if experiment else "future-thing"
    summary = experiment.summarise(rows) if experiment else []
    tell(screen, experiment, {"experiment": name, "rows": rows, "summary": summary})
    return screen.file.getvalue()


def digits_rows(name, seeds):
    """Rows with numbers as long as those of a run that diverged."""
    experiment = find(name)
    return [
        {
            "label": run.label,
            "optimizer": "SGD",
            "seed": run.seed,
            **run.options,
            "final_acc": 0.9625,
            "peak_r": 1.8512e30,
            "final_mean_r": 4.321e29,
            "final_mean_lr": 0.1655,
            "final_mean_radius": 2.351e-7,
            "final_cap_fraction": 0.984,
            "diverged": True,
        }
        for run in experiment.runs(experiment.settings(), seeds)
    ]


def test_on_a_pipe_nothing_is_coloured_wrapped_or_taken_for_markup(capsys):
    screen = console()
    say(screen, "page: [red]" + "x" * 500 + " :smile: 1.0")
    assert capsys.readouterr().out == "page: [red]" + "x" * 500 + " :smile: 1.0\n"
    tell(screen, COUNTING, {"experiment": "counting", "rows": [{"label": "y" * 100, "seed": 7, "sum": 1.0}]})
    assert "y" * 100 in capsys.readouterr().out


def test_on_a_pipe_each_run_is_a_line():
    screen = Console(file=io.StringIO(), width=160)
    with progress(screen, Counting(), runs=2) as finished:
        finished({"label": "one", "seed": 7, "sum": 3.5})
        finished({"label": "two", "seed": 7, "sum": "inf"})
    assert screen.file.getvalue() == "1 of 2  one, seed 7: sum 3.5\n2 of 2  two, seed 7: sum inf\n"


def test_on_a_terminal_a_bar_counts_the_runs():
    screen = Console(file=io.StringIO(), width=100, force_terminal=True)
    with progress(screen, Counting(), runs=2) as finished:
        finished({"label": "one", "seed": 7, "sum": 3.5})
        while "1/2" not in screen.file.getvalue():  # the test's own time limit ends it otherwise
            pass
    assert "0/2" in screen.file.getvalue()
    assert "sum 3.5" not in screen.file.getvalue()


def test_one_seed_shows_rows_several_show_summaries():
    rows = [{"label": label, "seed": 7, "sum": 3.5} for label in ("one", "two")]
    text = shown(rows)
    assert "counting, seed 7" in text
    assert [word in text for word in ("run", "sum", "one", "two", "3.5")] == [True] * 5
    more = [*rows, {"label": "one", "seed": 8, "sum": 4.0}]
    text = shown(more)
    assert "counting, 2 seeds" in text
    assert "sum" not in text
    assert "no run finished yet" in shown([])


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("digits")])
@pytest.mark.parametrize("seeds", [[7], [7, 8, 9]])
def test_the_tables_of_the_default_runs_fit_80_columns_whole(name, seeds):
    text = shown(digits_rows(name, seeds), find(name), width=80)
    assert all(len(line) <= 80 for line in text.splitlines())
    rows = find(name).runs(find(name).settings(), seeds[:1])
    assert len(text.splitlines()) == 3 + len(rows)
    assert "…" not in text
    assert all(word in text for word in ("peak r", "capped", "diverged", "1.85e+30", "0.984", "0.166"))
    assert all((number in text) == (len(seeds) == 1) for number in ("4.32e+29", "2.35e-07"))


@pytest.mark.parametrize("width", [40, 10])
@pytest.mark.parametrize("seeds", [[7], [7, 8]])
def test_a_narrow_terminal_loses_no_digit(width, seeds):
    rows, experiment = digits_rows("digits-sgd", seeds), find("digits-sgd")
    assert shown(rows, experiment, width) == shown(rows, experiment, 200)
    assert "…" not in shown(rows, experiment, width)


def test_rows_that_lack_a_value_show_that_they_do():
    assert shown([{"label": "one", "seed": 7}]).splitlines()[-1].split() == ["one", "–"]
    screen = Console(file=io.StringIO(), width=160)
    with progress(screen, Counting(), runs=1) as finished:
        finished({"label": "one", "seed": 7})
    assert screen.file.getvalue() == "1 of 1  one, seed 7: sum –\n"


def test_an_unknown_experiment_shows_what_its_rows_hold():
    rows = [{"label": "slow", "seed": 1, "end_rate": 0.123456789, "steps": 12}]
    lines = shown(rows, None).splitlines()
    assert lines[0] == "future-thing, seed 1"
    assert lines[1].split() == ["label", "end", "rate", "steps"]
    assert lines[3].split() == ["slow", "0.1235", "12"]
    lines = shown([*rows, {"label": "slow", "seed": 2}], None).splitlines()
    assert lines[0] == "future-thing, 2 seeds"
    assert lines[4].split() == ["slow", "2", "–", "–"]


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (0.12345, ".3f", "0.123"),
        (-0.5, ".1f", "-0.5"),
        (1.5e30, ".3f", "1.5e+30"),
        (-1e5, ".3f", "-1e+05"),
        (99999.0, ".1f", "99999.0"),
        ("nan", ".3f", "nan"),
        (5.0, "#.3g", "5.00"),
        (0.0005, "#.3g", "0.000500"),
        (123.4, "#.3g", "123"),
        (1234.5, "#.3g", "1234"),
        (99999.0, "#.4g", "99999"),
        (1e5, "#.3g", "1e+05"),
        (2.5e-7, "#.3g", "2.50e-07"),
        (float("inf"), "#.3g", "inf"),
        (0.8166666, "", "0.8167"),
        (3, ".3f", "3"),
        (None, ".3f", "–"),
        (0.0, ".6f", "0.000000"),
        (2.5e-7, ".6f", "2.5e-07"),
        (0.00049, ".3f", "0.00049"),
        (0.00052, ".3f", "0.001"),
        (False, "", "no"),
        ("pin", "", "pin"),
        (float("inf"), ".3f", "inf"),
    ],
)
def test_cells(value, form, text):
    assert cell(value, form) == text
