"""What is shown: lines for a pipe, a bar for a terminal, one table for rows and another for seeds."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from experiments.counting import Counting
from safestep.experiments.rundir import append_record
from safestep.experiments.screen import cell, console, progress, say, tell


def shown(rows) -> str:
    screen = Console(file=io.StringIO(), width=100)
    tell(screen, Counting(), {"rows": rows})
    return screen.file.getvalue()


def test_on_a_pipe_nothing_is_coloured_wrapped_or_taken_for_markup(capsys):
    screen = console()
    say(screen, "page: [red]" + "x" * 500 + " :smile: 1.0")
    assert capsys.readouterr().out == "page: [red]" + "x" * 500 + " :smile: 1.0\n"
    tell(screen, Counting(), {"rows": [{"label": "y" * 100, "seed": 7, "sum": 1.0}]})
    assert "y" * 100 in capsys.readouterr().out


def test_on_a_pipe_each_run_is_a_line(tmp_path):
    screen = Console(file=io.StringIO(), width=160)
    with progress(screen, Counting(), runs=2, records=3, path=tmp_path) as finished:
        finished({"label": "one", "seed": 7, "sum": 3.5})
        finished({"label": "two", "seed": 7, "sum": "inf"})
    assert screen.file.getvalue() == "1 of 2  one, seed 7: sum 3.5\n2 of 2  two, seed 7: sum inf\n"


def test_on_a_terminal_a_bar_follows_the_records(tmp_path):
    append_record(tmp_path, {"of": "an earlier run"})
    screen = Console(file=io.StringIO(), width=100, force_terminal=True)
    with progress(screen, Counting(), runs=2, records=2, path=tmp_path) as finished:
        append_record(tmp_path, {"count": 0})
        while "25%" not in screen.file.getvalue():  # the test's own time limit ends it otherwise
            pass
        finished({"label": "one", "seed": 7, "sum": 3.5})
        while "1 of 2 runs" not in screen.file.getvalue():
            pass
    assert "0 of 2 runs" in screen.file.getvalue()
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


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (0.12345, ".3f", "0.123"),
        (-0.5, ".1f", "-0.5"),
        (1.5e30, ".3f", "1.5e+30"),
        (-1e5, ".3f", "-1e+05"),
        (99999.0, ".1f", "99999.0"),
        ("nan", ".3f", "nan"),
        (3, ".3f", "3"),
        (False, "", "no"),
        ("pin", "", "pin"),
        (float("inf"), ".3f", "inf"),
    ],
)
def test_cells(value, form, text):
    assert cell(value, form) == text
