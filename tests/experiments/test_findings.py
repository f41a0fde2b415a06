"""The sentences at the top of the page follow from the rows."""

from __future__ import annotations

import pytest

from experiments.made_up import RUNS, epochs, row
from safestep.experiments.report.findings import findings


@pytest.fixture
def rows():
    return [row(epochs(*run, 7)) for run in [*RUNS, ("pin", "pin", None)]]


def test_they_say_what_the_rows_say(rows):
    assert findings(rows, 1.0) == [
        "1 of the 2 runs at a fixed rate diverged: fixed 5.0.",
        "None of the 2 capped runs diverged.",
        "The pinned run did not diverge.",
        "At learning rate 0.5 the plain and the capped run both end at 99.1 % test accuracy.",
        "At learning rate 5.0 the plain run ends at 10.0 % test accuracy, the capped one at 99.1 %.",
        "Pin, without any learning rate, ends at 99.1 % test accuracy; its effective rate in the last epoch is 0.15.",
        "The longest step that a capped or pinned run takes has r = 1 (target 1).",
        "The longest step at a fixed rate has r = 2·10³⁰ (fixed 5.0).",
    ]


def test_they_change_when_the_rows_change(rows):
    changed = [
        one | {"diverged": one["policy"] == "cap", "peak_r": 7.0 if one["policy"] == "cap" else 0.5} for one in rows
    ]
    said = findings(changed, 1.0)
    assert "None of the 2 runs at a fixed rate diverged." in said
    assert "2 of the 2 capped runs diverged: capped 0.5 and 5.0." in said
    assert "The longest step that a capped or pinned run takes has r = 7 (target 1)." in said


def test_several_seeds_are_counted_and_their_medians_told():
    rows = [row(epochs(*run, seed)) for run in [*RUNS, ("pin", "pin", None)] for seed in (0, 10, 20)]
    rows[3]["diverged"] = False  # one seed of fixed 5.0
    said = findings(rows)
    assert "2 of the 6 runs at a fixed rate diverged: some of the seeds of fixed 5.0." in said
    assert (
        "At learning rate 0.5 the plain and the capped run both end at 99.4 % test accuracy (median over the seeds)."
        in said
    )
    assert (
        "Pin, without any learning rate, ends at 99.4 % test accuracy; its effective rate in the last epoch is 0.15 "
        "(medians over the seeds)." in said
    )


def test_numbers_that_are_none_are_not_hidden(rows):
    rows[1]["peak_r"] = "nan"
    assert "The longest step at a fixed rate has an r that is not finite (fixed 5.0)." in findings(rows)


def test_rows_of_another_kind_say_nothing():
    assert findings([]) == []
    assert findings([{"label": "drift", "seed": 0, "steps": 12}]) == []
