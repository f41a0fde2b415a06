"""Every n-th step, and those between that nobody should miss."""

from __future__ import annotations

import math

import pytest

import safestep
from logs.reports import inside, report, run
from safestep import Status
from safestep.errors import AttachError
from safestep.logs import Every, JsonLines, read


def passed(n, reports):
    steps: list[int] = []
    sink = Every(n, lambda one: steps.append(one.step))
    for one in reports:
        sink(one)
    before = list(steps)
    sink.close()
    return before, steps


def test_multiples_and_the_first():
    assert passed(10, map(inside, range(25)))[0] == [0, 10, 20]
    assert passed(10, map(inside, range(13, 35)))[0] == [13, 20, 30]  # a resumed run: its first step tells where
    assert passed(1, map(inside, range(3)))[0] == [0, 1, 2]


@pytest.mark.parametrize("status", [Status.UNDONE, Status.SKIPPED, Status.HELD, Status.NONFINITE, Status.UNMEASURED])
def test_a_step_that_is_lost_is_never_left_out(status):
    ratio = math.inf if status is Status.HELD else math.nan
    lost = [inside(step) if step not in (3, 7) else report(step, status=status, ratio=ratio) for step in range(12)]
    assert passed(10, lost)[0] == [0, 3, 7, 10]


def test_an_infinite_r_under_a_watch_is_never_left_out():
    steps = [report(s, status=Status.WATCHED, ratio=math.inf if s == 4 else 0.5) for s in range(9)]
    assert passed(10, steps)[0] == [0, 4]


@pytest.mark.parametrize("status", [Status.UNDONE, Status.SKIPPED, Status.HELD])
def test_of_what_the_guard_did_each_is_passed_on(status):
    assert passed(100, (report(s, status=status, ratio=math.nan) for s in range(5)))[0] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("status", [Status.NONFINITE, Status.UNMEASURED])
@pytest.mark.parametrize("ratio", [math.nan, math.inf])
def test_of_what_is_left_alone_for_ever_the_first_is_passed_on(status, ratio):
    """A model whose weights are nan under Watch is so at every step from then on."""
    lost = [inside(s) if s < 5 else report(s, status=status, ratio=ratio) for s in range(25)]
    assert passed(10, lost)[1] == [0, 5, 10, 20]


def test_the_longest_step_beyond_the_target_comes_with_the_next_regular_one():
    ratios = {3: 2.0, 6: 7.0, 8: 5.0, 23: 1.5}
    steps = [report(s, ratio=ratios[s]) if s in ratios else inside(s) for s in range(25)]
    before, closed = passed(10, steps)
    assert before == [0, 6, 10, 20]
    assert closed == [0, 6, 10, 20, 23]


def test_a_run_that_goes_back_to_an_older_state_takes_back_what_was_kept():
    steps = [*map(inside, range(8)), report(8, ratio=7.0), *map(inside, range(4, 8)), inside(10)]
    assert passed(10, steps)[1] == [0, 10]


def test_what_is_kept_comes_before_a_lost_step():
    steps = [inside(0), report(1, ratio=3.0), report(2, status=Status.UNDONE), inside(3)]
    assert passed(10, steps)[1] == [0, 1, 2]


def test_beyond_is_beyond_the_target_or_where_there_is_none_beyond_one():
    assert passed(10, [inside(0), inside(1, ratio=0.75, target=0.5)])[1] == [0, 1]
    assert passed(10, [inside(0), inside(1, ratio=3.0, target=4.0)])[1] == [0]
    assert passed(10, [inside(0), inside(1, ratio=3.0, target=math.inf)])[1] == [0]
    assert passed(10, [inside(0), report(1, status=Status.WATCHED, ratio=1.5, target=math.nan)])[1] == [0, 1]


def test_attach_thins_out_every_log_it_was_given(tmp_path):
    steps: list[int] = []
    paths = [tmp_path / "steps.jsonl", tmp_path / "steps.csv"]
    guard = run(steps=9, policy=safestep.Cap(math.inf), log=[*paths, lambda one: steps.append(one.step)], log_every=4)
    guard.detach()
    assert [read(path)["step"] for path in paths] == [steps, steps]
    assert steps == [0, 2, 4, 8]  # step 2 was undone
    assert guard.history["step"] == list(range(9))


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "10", None])
def test_a_bad_number_of_steps(n, tmp_path):
    with pytest.raises(AttachError, match=r"n=.*whole number of at least 1"):
        Every(n, JsonLines(tmp_path / "a.jsonl"))
    with pytest.raises(AttachError, match="log_every="):
        run(log=tmp_path / "a.jsonl", log_every=n)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sink", [None, "steps.jsonl", JsonLines])
def test_a_bad_sink(sink):
    with pytest.raises(AttachError, match="expected a path, a sink"):
        Every(2, sink)
    with pytest.raises(AttachError, match="expected a path, a sink"):
        safestep.logs.EachRank(sink)
