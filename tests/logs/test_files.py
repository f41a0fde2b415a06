"""JSON lines and CSV: what is in the file after a run, a kill, a new column, a resumed run; and read back."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import safestep
from logs.reports import report, run, same
from safestep.errors import AttachError, LogError, SafestepWarning
from safestep.logs import Csv, JsonLines, read
from safestep.logs.follow import Follower
from safestep.records.report import COLUMNS
from zoo.cases import ZOO
from zoo.optimizers import ALL
from zoo.training import Training

SINKS = pytest.mark.parametrize("make", [JsonLines, Csv])


@pytest.fixture
def path(tmp_path, make):
    return tmp_path / ("steps.csv" if make is Csv else "steps.jsonl")


def write(make, path, *reports):
    sink = make(path)
    for one in reports:
        sink(one)
    sink.close()


# -- what was written is what comes back ------------------------------------------------------------------------------


@SINKS
def test_a_run_comes_back_from_its_log(make, path):
    """Statuses, texts, flags, lists, numbers that are not finite, and columns that appear late."""
    guard = run(log=path)
    again = read(path)
    assert len(again) == len(guard.history) == 5
    assert all(map(same, again, guard.history))
    assert {"capped", "undone"} == set(again["status"])
    assert list(again[-1].extras.values()) == [8.0, math.inf]


@SINKS
@pytest.mark.parametrize(
    "changes",
    [
        {"message": 'with "quotes", commas; ρ'},
        {"message": "cut ,"},
        {"lrs": (), "effective_lrs": ()},
        {"lrs": (math.nan,), "effective_lrs": (math.nan,), "ratio": math.nan, "radius": -math.inf, "exact": False},
        {"extras": {"a,b": 1.0, "flag": True, "nan": math.nan, "step 2": 5e-324}},
        {"ratio": 1 / 3, "scale": 2.0**-1074, "age": 17, "method": ""},
    ],
    ids=str,
)
def test_any_report_comes_back(make, path, changes):
    write(make, path, report(3, **changes))
    assert same(read(path)[0], report(3, **changes))


@SINKS
def test_a_text_of_several_lines_stays_on_one(make, path):
    write(make, path, report(message="one\r\ntwo\nthree"), report(1))
    assert len(path.read_text().splitlines()) == (3 if make is Csv else 2)
    assert read(path)[0].message.split() == ["one", "two", "three"]


def test_the_exports_of_a_history_are_read_too(tmp_path):
    guard = run()
    for written in (guard.history.to_jsonl(tmp_path / "h.jsonl"), guard.history.to_csv(tmp_path / "h.csv")):
        assert read(written)["ratio"][:2] == guard.history["ratio"][:2]
        assert read(written)["status"] == guard.history["status"]


def test_pandas_reads_the_csv(tmp_path):
    guard = run(log=tmp_path / "steps.CSV")  # the suffix in either case
    frame = pd.read_csv(tmp_path / "steps.CSV")
    assert frame["scale"].tolist() == guard.history["scale"]
    assert frame["late"].tolist()[3:] == [math.inf] * 2
    assert frame["late"].isna().tolist() == [True] * 3 + [False] * 2


# -- while it is written ----------------------------------------------------------------------------------------------


@SINKS
def test_after_each_step_the_file_holds_whole_lines(make, path):
    sink = make(path)
    for step in range(3):
        sink(report(step))
        assert path.read_bytes().endswith(b"\n")
        assert read(path)["step"] == list(range(step + 1))
    sink.close()


def test_a_killed_run_leaves_every_step_it_took(tmp_path):
    paths = [str(tmp_path / name) for name in ("steps.jsonl", "steps.csv")]
    code = f"""
import os
from logs.reports import run
def kill(report):
    if report.step == 3:
        os.kill(os.getpid(), 9)
run(log=[*{paths}, kill])
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert done.returncode == -9, done.stderr.decode()
    assert [read(path)["step"] for path in paths] == [[0, 1, 2, 3]] * 2


def test_a_new_column_widens_the_csv_and_keeps_every_row(tmp_path):
    path = tmp_path / "steps.csv"
    sink = Csv(path)
    sink(report(0))
    sink(report(1, extras={"first": 1.0}))
    sink(report(2, extras={"second": 2.0}))
    sink(report(3))
    sink.close()
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == [*COLUMNS, "first", "second"]
    assert {len(row) for row in rows} == {len(header)}
    assert [row[-2:] for row in rows] == [["", ""], ["1.0", ""], ["", "2.0"], ["", ""]]
    assert list(tmp_path.iterdir()) == [path]


def test_widening_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "steps.csv"
    sink = Csv(path)
    sink(report(0))
    before = path.read_bytes()
    (tmp_path / ".steps.csv.new").mkdir()  # in the way of the wider file
    with pytest.raises(OSError, match=r"\.steps\.csv\.new"):
        sink(report(1, extras={"late": 1.0}))
    assert path.read_bytes() == before
    sink.close()


def test_a_link_to_the_file_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    link = tmp_path / "steps.csv"
    link.symlink_to(tmp_path / "there" / "steps.csv")
    write(Csv, link, report(0), report(1, extras={"late": 1.0}))
    assert link.is_symlink()
    assert len(read(tmp_path / "there" / "steps.csv")) == 2


# -- resumed ----------------------------------------------------------------------------------------------------------


@SINKS
def test_a_second_life_appends_and_replaces_the_steps_it_repeats(make, path):
    write(make, path, *(report(step, ratio=1.0) for step in range(7)))
    write(make, path, *(report(step, ratio=2.0, extras={"new": 1.0}) for step in range(4, 6)))
    history = read(path)
    assert history["step"] == [0, 1, 2, 3, 4, 5]  # step 6 belongs to the life that was given up
    assert history["ratio"] == [1.0] * 4 + [2.0] * 2
    assert read(path, superseded=True)["step"] == [0, 1, 2, 3, 4, 5, 6, 4, 5]


@SINKS
def test_a_new_run_on_the_log_of_an_old_one_is_told_once_and_holds(make, path):
    run(log=path)
    told = r"steps\.\w+ holds the records of an earlier run, .*, up to step 4, and a run begins.*a file of its own"
    with pytest.warns(SafestepWarning, match=told) as seen:
        run(steps=2, log=path)
    assert len(seen) == 1
    assert seen[0].filename != safestep.logs.line_file.__file__  # but the user's line
    assert read(path)["step"] == [0, 1]
    assert read(path, superseded=True)["step"] == [0, 1, 2, 3, 4, 0, 1]


@SINKS
def test_a_run_that_goes_on_is_not_told(make, path):
    state = run(log=path).state_dict()
    training = Training(ZOO["mlp"], ALL["SGD"], big=True)
    guard = training.attach(log=path)
    guard.load_state_dict(state)
    training.step()
    guard.detach()
    assert read(path)["step"] == [0, 1, 2, 3, 4, 5]


@SINKS
@pytest.mark.parametrize("left", [b"", b"\n", b'{"note": "mine"}\n'])
def test_a_first_run_in_a_file_without_records_is_not_told(make, path, left):
    path.write_bytes(left if make is JsonLines else b"")
    write(make, path, report(0))


@SINKS
@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_line_that_a_kill_cut_short_is_said_and_spoils_no_other(make, path, cut):
    write(make, path, report(0), report(1, message='"quoted"'))
    path.write_bytes(path.read_bytes()[:-cut])
    if make is Csv or cut > 1:  # a JSON object that lacks its line break alone is whole
        with pytest.warns(SafestepWarning, match=f"1 of its lines.*line {3 if make is Csv else 2}"):
            assert read(path)["step"] == [0]
    write(make, path, report(1), report(2))
    with path.open() as file:
        assert all(line.endswith("\n") for line in file)
    if make is Csv or cut == 1:
        assert read(path)["step"] == [0, 1, 2]
    else:
        with pytest.warns(SafestepWarning, match="line 2"):
            assert read(path)["step"] == [0, 1, 2]


@pytest.mark.parametrize("left", [b"", b"step,stat", ",".join([*COLUMNS, "extr"]).encode()])
def test_a_csv_that_was_killed_in_its_header_begins_again(tmp_path, left):
    path = tmp_path / "steps.csv"
    path.write_bytes(left)
    write(Csv, path, report(0))
    assert read(path)["step"] == [0]


def test_a_csv_goes_on_under_the_header_it_has(tmp_path):
    """An export of a history has its columns in another order."""
    path = run().history.to_csv(tmp_path / "steps.csv")
    header = path.read_text().splitlines()[0]
    write(Csv, path, report(5, extras={"twice": 7.0}))
    assert path.read_text().splitlines()[0] == header
    assert read(path)["twice"][-1] == 7.0
    assert read(path)["step"] == list(range(6))


@pytest.mark.parametrize("text", ["x,y\n1,2\n", "a note without a line break", "\n", "step,status\n"])
def test_a_csv_that_is_something_else_is_refused_and_kept(tmp_path, text):
    path = tmp_path / "data.csv"
    path.write_text(text)
    with pytest.raises(AttachError, match=r"data.csv exists.*choose another file"):
        run(log=path)
    assert path.read_text() == text


@SINKS
def test_a_sink_that_was_closed_opens_again(make, path):
    sink = make(path)
    sink(report(0))
    sink.close()
    sink.close()
    sink(report(1))
    assert read(path)["step"] == [0, 1]
    sink.close()


# -- reading what is none ---------------------------------------------------------------------------------------------


def test_lines_of_something_else_are_left_out_and_said(tmp_path):
    path = tmp_path / "mixed.jsonl"
    row = report(0).row()
    lines = [{"kind": "epoch"}, row, [1], row | {"step": "one"}, row | {"status": "lost"}, row | {"exact": 3}]
    lines.append(row | {"ratio": 10**400})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "[" * 100_000 + "\n\n")
    with pytest.warns(SafestepWarning, match=r"7 of its lines.*line 1, 3, 4, \.\.\."):
        assert read(path)["step"] == [0]


@SINKS
@pytest.mark.parametrize(
    "spoil", [lambda data: b"\xef\xbb\xbf" + data, lambda data: data.replace(b"message mine", b"\xe9")]
)
def test_what_an_editor_saved_otherwise_is_read_alike_by_both_readers(make, path, spoil):
    """A mark of the byte order at the beginning, or a text that is no UTF-8."""
    write(make, path, *(report(step, message="message mine") for step in range(3)))
    path.write_bytes(spoil(path.read_bytes()))
    follower = Follower(path)
    follower.look()
    assert [one.step for one in follower.steps] == read(path)["step"] == [0, 1, 2]
    assert follower.left_out == 0


def test_an_error_shows_the_beginning_of_a_line_that_has_no_spaces(tmp_path):
    path = tmp_path / "steps.csv"
    path.write_text(";".join(COLUMNS) + "\n1;2\n")
    with pytest.raises(LogError, match=r"has the columns step;status;ratio;.*, and not step"):
        read(path)


def test_a_file_without_any_record_is_no_log(tmp_path):
    path = tmp_path / "notes.jsonl"
    path.write_text("one\ntwo\n")
    with pytest.raises(ValueError, match="holds no record of a step: its first line is 'one'"):
        read(path)
    path.write_text("")
    assert len(read(path)) == 0
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "missing.csv")


def test_the_public_name_stayed():
    assert safestep.JsonLines is JsonLines


# -- what a user does to a file meanwhile -----------------------------------------------------------------------------


def test_a_column_that_comes_after_a_change_of_directory_goes_to_the_same_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    sink = Csv("steps.csv")
    sink(report(0))
    monkeypatch.chdir(tmp_path / "elsewhere")
    sink(report(1, extras={"late": 1.0}))
    sink.close()
    assert read(tmp_path / "steps.csv")["late"][1] == 1.0


@SINKS
@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.rename("moved")])
def test_a_file_that_was_taken_away_or_emptied_is_begun_again(make, path, change, monkeypatch):
    monkeypatch.chdir(path.parent)
    sink = make(path)
    sink(report(0))
    change(path)
    sink(report(1))
    sink(report(2))
    sink.close()
    assert read(path)["step"] == [1, 2]


@SINKS
def test_two_that_write_to_one_file_are_told_and_every_line_is_whole(make, path):
    one, two = make(path), make(path)
    one.open()
    two.open()
    told = "written to by somebody else.*a file of its own"
    one(report(0))
    with pytest.warns(SafestepWarning, match=told):
        two(report(0))
    with pytest.warns(SafestepWarning, match=told):
        one(report(1))
    two(report(1, extras={"late": 1.0}))  # each is told once
    one(report(2))
    two(report(2, extras={"late": 1.0}))
    one.close()
    two.close()
    assert sorted(read(path, superseded=True)["step"]) == [0, 0, 1, 1, 2, 2]


def test_a_row_with_an_open_quote_spoils_no_other(tmp_path):
    path = tmp_path / "steps.csv"
    write(Csv, path, report(0))
    with path.open("a") as file:
        file.write('1,"cap\n' + "\0" * 200_000 + "\n")
    write(Csv, path, report(1), report(2))
    with pytest.warns(SafestepWarning, match=r"2 of its lines.*\(line 3, 4\)"):
        assert read(path)["step"] == [0, 1, 2]


@pytest.mark.parametrize("name", ["steps.csv.gz", "steps.jsonl.ZIP"])
def test_a_log_is_not_packed(name, tmp_path):
    with pytest.raises(AttachError, match=r"plain text; leave off \.(gz|ZIP)"):
        run(log=tmp_path / name)
    assert not list(tmp_path.iterdir())
