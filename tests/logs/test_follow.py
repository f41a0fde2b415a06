"""A log followed while it is written, cut, moved away and begun again."""

from __future__ import annotations

import contextlib

import pytest

import safestep
from logs.reports import inside, report, same
from safestep.errors import LogError
from safestep.logs import Csv, JsonLines, read
from safestep.logs import follow as following
from safestep.logs.follow import Follower

KINDS = {"csv": Csv, "jsonl": JsonLines}


@pytest.fixture(params=KINDS)
def log(request, tmp_path):
    """A sink, and the path it writes to."""
    path = tmp_path / f"steps.{request.param}"
    sink = KINDS[request.param](path)
    yield sink, path
    sink.close()


def steps(follower: Follower) -> list[int]:
    return [one.step for one in follower.steps]


def test_each_look_brings_what_was_written_since(log):
    sink, path = log
    follower = Follower(path)
    assert not follower.look()
    for step in range(5):
        sink(inside(step) if step % 2 else report(step))
        assert follower.look()
        assert not follower.look()
    assert all(same(*both) for both in zip(follower.steps, read(path), strict=True))


def test_a_line_that_is_not_whole_waits_for_its_end(log):
    sink, path = log
    for step in range(3):
        sink(report(step))
    whole = path.read_bytes()
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        follower = Follower(path)
        follower.look()
        expected = max(0, whole[:cut].count(b"\n") - (path.suffix == ".csv"))
        assert steps(follower) == list(range(expected))
        assert follower.left_out == 0
        with path.open("ab") as file:
            file.write(whole[cut:])
        follower.look()
        assert steps(follower) == [0, 1, 2]


def test_a_file_that_is_moved_away_is_waited_for_and_read_when_it_is_there_again(log):
    sink, path = log
    follower = Follower(path)
    sink(report(0))
    sink(report(1))
    follower.look()
    path.rename(path.with_suffix(".old"))
    assert not follower.look()
    assert steps(follower) == [0, 1]
    sink(report(2))  # the sink begins the file again
    assert follower.look()
    assert steps(follower) == [0, 1, 2]


def test_a_file_that_is_emptied_and_written_to_again_is_read_from_its_beginning(log):
    sink, path = log
    follower = Follower(path)
    for step in range(4):
        sink(report(step))
    follower.look()
    path.write_bytes(b"")
    follower.look()
    for step in range(9):  # past the place where the last look ended
        sink(inside(step))
    assert follower.look()
    assert steps(follower) == list(range(9))
    assert {one.status for one in follower.steps} == {safestep.Status.INSIDE}


def test_a_new_column_writes_csv_anew_and_nothing_is_taken_twice(tmp_path):
    path = tmp_path / "steps.csv"
    with contextlib.closing(Csv(path)) as sink:
        follower = Follower(path)
        sink(report(0))
        follower.look()
        sink(report(1, extras={"sharpness": 2.5}))
        sink(report(2, extras={"sharpness": 3.5}))
        assert follower.look()
    assert steps(follower) == [0, 1, 2]
    assert [one.extras for one in follower.steps] == [{}, {"sharpness": 2.5}, {"sharpness": 3.5}]


def test_a_resumed_run_drops_what_its_earlier_life_wrote(log):
    sink, path = log
    follower = Follower(path)
    for step in (0, 1, 2, 3):
        sink(report(step))
    follower.look()
    sink(inside(2))
    follower.look()
    assert steps(follower) == [0, 1, 2]
    assert follower.steps[-1].status is safestep.Status.INSIDE
    assert follower.superseded == 2


@pytest.mark.filterwarnings("ignore:.*records of an earlier run")
def test_what_a_new_run_superseded_is_counted_even_beyond_what_is_kept(log):
    sink, path = log
    follower = Follower(path, keep=3)
    for step in range(9):
        sink(report(step))
    follower.look()
    sink(report(0))
    sink(report(1, extras={"late": 1.0}))  # a file of CSV is written anew, and read anew
    follower.look()
    assert steps(follower) == [0, 1]
    assert follower.superseded == 9


def test_of_a_long_file_the_end_is_read(log, monkeypatch):
    sink, path = log
    for step in range(200):
        sink(report(step))
    line = path.read_bytes().splitlines(keepends=True)[-1]
    monkeypatch.setattr(following, "_TAIL", 10 * len(line))
    follower = Follower(path)
    follower.look()
    assert 8 <= len(steps(follower)) <= 11
    assert steps(follower)[-1] == 199
    assert follower.left_out == 0
    sink(report(200))
    follower.look()
    assert steps(follower)[-2:] == [199, 200]


def test_only_so_many_steps_are_kept(log):
    sink, path = log
    for step in range(20):
        sink(report(step))
    follower = Follower(path, keep=5)
    follower.look()
    assert steps(follower) == [15, 16, 17, 18, 19]


@pytest.mark.filterwarnings("ignore:.*somebody else too")
def test_lines_that_are_no_records_are_counted(log):
    sink, path = log
    sink(report(0))
    with path.open("ab") as file:
        file.write(b'{"step": 1}\nnonsense\n\xff\xfe\n\n[[[\n')
    sink(report(1))
    follower = Follower(path)
    follower.look()
    assert steps(follower) == [0, 1]
    assert follower.left_out == 4


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "epoch,loss\n1,2\n", r"its first line has the columns epoch, loss, and not step, status, ratio"),
        ("a.jsonl", '{"epoch": 1}\n', r"its first line has the columns epoch, and not step, status, ratio"),
        ("a.jsonl", "hello\n", r"its first line is 'hello'"),
        ("a.txt", "12\n", r"its first line is '12'"),
    ],
)
def test_a_file_that_is_no_log_is_an_error_that_says_what_it_is(name, text, message, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    for look in (Follower(path).look, lambda: read(path)):
        with pytest.raises(LogError, match=message) as told:
            look()
        assert "Expected a .csv or .jsonl file as `safestep.attach(..., log=...)` writes it" in str(told.value)


def test_read_says_of_a_single_line_that_it_is_cut_short(tmp_path):
    path = tmp_path / "steps.jsonl"
    path.write_text('{"step": 0, "status": "ins')
    with pytest.raises(LogError, match="its only line is cut short or endless"):
        read(path)
    assert not Follower(path).look()  # it may be on its way
