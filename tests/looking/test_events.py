"""What is told of a run: its events, its counts and its findings, on real records."""

from __future__ import annotations

import math

import pytest

from logs.reports import inside, report
from looking.conftest import BROKEN, SPIKE, STEPS
from safestep import Cap, Pin, Status, Watch
from safestep.logs import read
from safestep.looking.counting import farthest, share, statuses, stretches
from safestep.looking.events import events, gathered
from safestep.looking.findings import findings
from safestep.looking.log_page import thinned
from safestep.looking.meanings import MEANINGS, meanings


@pytest.fixture(scope="module")
def reports(logs):
    return list(read(logs / "steps.jsonl"))


def test_the_spike_and_the_undone_steps_are_told(reports):
    told = {event.step: event.text for event in events(reports)}
    assert told[SPIKE].startswith(f"r jumps to {reports[SPIKE].ratio:.3g}, from at most ")
    assert f"scale {reports[SPIKE].scale:.3g}" in told[SPIKE]
    assert told[BROKEN[0]].startswith("undone, 2 in a row")
    assert not {*BROKEN[1:], *range(SPIKE)} & told.keys()


def test_a_quiet_run_has_no_events_and_says_that_nothing_was_shortened():
    quiet = [inside(step) for step in range(50)]
    assert events(quiet) == []
    assert findings(quiet)[0] == "No step was shortened: the guard left the run as it was."


def test_one_series_ends_where_the_status_changes():
    lost = [report(0, status=Status.UNDONE, ratio=math.nan), report(1, status=Status.SKIPPED, ratio=math.nan)]
    assert [(event.step, event.text) for event in events(lost)] == [(0, "undone"), (1, "skipped")]


def test_a_first_shortened_step_and_one_after_a_long_while_are_told():
    run = [report(0), *(inside(step) for step in range(1, 102)), report(102, ratio=2.0), report(103, ratio=2.0)]
    assert [event.step for event in events(run)] == [0, 102]
    assert events(run)[0].text.startswith("capped: r ")
    assert events([inside(0), report(1, ratio=2.0)])[0].text == "capped: r 2, scale 0.25"
    assert events(run)[1].text == "capped, the first in 100 steps: r 2, scale 0.25"


def test_steps_that_are_held_again_and_again_hide_nothing_else():
    def held(step):
        return report(step, status=Status.HELD, ratio=math.inf, scale=0.0, message="uphill")

    lost = {30, 31, *range(40, 90, 3)}
    run = [held(step) if step in lost else inside(step, ratio=40.0 if step == 35 else 0.25) for step in range(90)]
    told = [(event.step, event.text) for event in gathered(events(run))]
    assert [step for step, _ in told] == [35, 88]
    assert told[0][1].startswith("r jumps to 40")
    assert told[1][1] == "held: uphill; 17 such before, from step 30"


def test_a_message_is_told_when_it_changes():
    run = [inside(step, message="fell back" if 3 <= step < 6 else "") for step in range(9)]
    assert [(event.step, event.text) for event in events(run)] == [(3, "inside: fell back")]


def test_findings_agree_with_the_records(reports):
    text = " ".join(findings(reports))
    capped = [one for one in reports if one.status is Status.CAPPED]
    assert "2 steps were not taken, not finite or not measured: 2 undone; the first is 40." in text
    assert f"{share(reports):.1%} of all" in text
    assert share(reports) == len(capped) / STEPS > 0
    assert f"the smallest scale is {min(one.scale for one in capped):.3g}" in text
    assert f"to r = {reports[SPIKE].ratio:.3g} (step {SPIKE}), " in text
    assert farthest(reports) is reports[SPIKE]


def test_what_a_policy_would_have_done_is_told_of_a_run_that_was_only_watched(trained, tmp_path):
    guard = trained(str(tmp_path / "steps.csv"), policy=Watch(Cap(1.0)))
    would = sum(one.would_scale < 1.0 for one in guard.history)
    text = " ".join(findings(list(read(tmp_path / "steps.csv"))))
    assert would > 0
    assert "only watched that the policy would have shortened." in text
    assert "1 step was" in text if would == 1 else f"{would} steps were" in text


def test_a_pinned_run_says_so(trained, tmp_path):
    trained(str(tmp_path / "steps.csv"), policy=Pin())
    pinned = sum(one.status is Status.PINNED for one in read(tmp_path / "steps.csv"))
    assert f"{pinned} steps were set to the target" in " ".join(findings(list(read(tmp_path / "steps.csv"))))


def test_a_guard_that_measured_nothing_says_that_it_held_nothing():
    blind = [report(0, status=Status.UNMEASURED, ratio=math.nan, scale=1.0, would_scale=1.0)]
    assert "r was never measured: this guard held nothing." in " ".join(findings(blind))


def test_a_run_of_lost_steps_is_not_said_to_be_left_as_it_was():
    none = {"ratio": math.nan, "applied_ratio": 0.0, "radius": math.nan, "scale": 0.0, "would_scale": 0.0}
    lost = [report(step, status=Status.SKIPPED, effective_lrs=(0.0, 0.0), **none) for step in range(3)]
    text = " ".join(findings(lost))
    assert "3 steps were not taken" in text
    assert "No step that was taken was shortened. r was never measured. The" in text
    assert "left the run as it was" not in text
    assert "held nothing" not in text


def test_predictions_alone_are_an_r():
    none = {"ratio": math.nan, "applied_ratio": math.nan, "radius": math.nan}
    text = " ".join(findings([inside(7, age=2, predicted_ratio=0.3, **none)]))
    assert "was predicted to go to r = 0.3 (step 7), inside its target 1." in text


def test_rates_that_differ_at_few_steps_are_said_to_differ():
    run = [*(inside(step, effective_lrs=(0.1, 0.2)) for step in range(9)), report(9)]
    assert findings(run)[-1] == (
        "The median learning rate of the first parameter group was 0.1 as given and 0.1 as it took effect; the two "
        "differ at 1 of 10 steps."
    )
    assert findings(run[:9])[-1] == "The median learning rate of the first parameter group was 0.1."


def test_every_status_has_a_meaning_and_those_that_occur_are_told(reports):
    assert MEANINGS.keys() == set(Status)
    assert meanings(reports).keys() == {str(one.status) for one in reports}
    assert all(len(words) <= 105 for words in MEANINGS.values())


def test_counts_agree_with_the_records(reports):
    rows = stretches(reports)
    assert [row["label"] for row in rows] == [f"{begin}–{begin + 5}" for begin in range(0, 60, 6)]
    assert sum(row["lost"] for row in rows) == len(BROKEN)
    assert [row["diverged"] for row in rows] == [row["label"] == "36–41" for row in rows]
    assert rows[5]["largest"] == reports[SPIKE].ratio
    assert sum(row["steps"] for row in statuses(reports)) == STEPS
    undone = next(row for row in statuses(reports) if row["label"] == "undone")
    assert (undone["steps"], undone["first"], undone["last"]) == (2, 40, 41)


def test_a_long_log_is_thinned_and_keeps_its_farthest_step(reports):
    few = thinned(reports, most=7)
    assert len(few) == 7
    assert reports[SPIKE] in few
    assert [one.step for one in few] == sorted(one.step for one in few)
    assert thinned(reports) is reports
