"""A row is complete, says what its steps were, and says so where they were not what it claims."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from safestep.bench import contestants, measure
from safestep.bench.cases import cases
from safestep.bench.contestants import AGAIN, JVP, PLAIN, Entrant, entries

CPU = torch.device("cpu")
CASE = cases(quick=True)["mlp"]
SHORT = measure.Effort(rounds=2, steps=3, warmup=3)


def measured(chosen, case=CASE, effort=SHORT, **changes):
    told = []
    rows = measure.measure(case, chosen, CPU, effort, told.append, **changes)
    assert all(case.about in line for line in told)
    return {(row["method"], row["situation"]): row for row in rows}


@pytest.fixture(scope="module")
def rows():
    return measured(entries())


def test_rows_are_complete(rows):
    assert len(rows) == len(entries())
    for (method, _), row in rows.items():
        assert row["flag"] == ""
        assert 0 < row["ratio_low"] <= row["ratio_median"] <= row["ratio_high"]
        assert row["rows_per_ms"] == pytest.approx(CASE.rows / row["ms_median"])
        assert (row["peak_bytes"] is None) == (method == AGAIN)
    plain = rows[PLAIN, "inside"]
    assert [plain[key] for key in ("ratio_median", "extra_peak_bytes", "peak_ratio", "first_peak_ratio")] == [
        1,
        0,
        1,
        1,
    ]


def test_the_records_of_the_timed_steps_alone_are_counted(rows):
    for (method, situation), row in rows.items():
        if method in contestants.METHODS:
            assert row["statuses"] == {situation: SHORT.rounds * SHORT.steps}
            assert sum(row["methods"].values()) == SHORT.rounds * SHORT.steps
            low, middle, high = row["ratios"]
            assert low <= middle <= high
            assert high < 1.0 if situation == "inside" else low > 0.1
        elif method == contestants.CURVATURE:
            assert row["statuses"] == {"watched": SHORT.rounds * SHORT.steps}
        else:
            assert (row["statuses"], row["methods"], row["ratios"]) == ({}, {}, ())


def test_a_guard_needs_at_least_a_copy_of_the_parameters(rows):
    parameters = 4 * sum(p.numel() for p in CASE.build().parameters())
    assert rows[JVP, "inside"]["extra_peak_bytes"] > 0
    for method in contestants.METHODS:
        assert rows[method, "capped"]["extra_peak_bytes"] >= 0.9 * parameters


def test_steps_that_are_not_what_the_row_says_are_flagged(monkeypatch):
    monkeypatch.setattr(contestants, "RATES", {"inside": 1.0, "capped": 1e-9})
    rows = measured([Entrant(PLAIN, "inside"), Entrant("exact", "inside"), Entrant("exact", "capped")], memory=False)
    assert rows["exact", "inside"]["flag"] == "expected 6 steps inside, saw 6 capped"
    assert rows["exact", "capped"]["flag"] == "expected 6 steps capped, saw 6 inside"


def test_a_run_that_blew_up_is_flagged(monkeypatch):
    monkeypatch.setattr(contestants, "RATES", {"inside": float("inf"), "capped": 1.0})
    rows = measured([Entrant(PLAIN, "inside")], memory=False)
    assert rows[PLAIN, "inside"]["flag"] == "the parameters are not finite"


def test_of_some_cases_memory_alone_is_measured():
    rows = measured(entries(), replace(CASE, timed=False))
    assert all(row["ratio_median"] is None and row["ms_median"] is None for row in rows.values())
    assert all(row["peak_bytes"] > 0 and row["flag"] == "" for row in rows.values())
    assert rows["exact", "capped"]["statuses"] == {"capped": 3}  # the fifth to the seventh step
    assert (AGAIN, "inside") not in rows


def test_warming_up_goes_past_the_checks_or_to_its_end():
    case = CASE
    for method, most, wanted in (("exact", 50, 9), ("exact", 6, 6), (PLAIN, 50, 3)):
        contestant = contestants.Contestant(Entrant(method, "inside"), case, CPU)
        count = []
        train = contestant.train
        contestant.train = lambda batches, count=count, train=train: (count.append(len(batches)), train(batches))
        measure._warm_up(contestant, measure.draw(case, CPU, 3, seed=0), most)
        assert sum(count) == wanted


def test_batches_depend_on_the_seed_alone_and_leave_the_generator():
    before = torch.get_rng_state()
    (first, _), (second, _) = (measure.draw(CASE, CPU, 1, seed=4)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, measure.draw(CASE, CPU, 1, seed=5)[0][0])
    assert torch.equal(torch.get_rng_state(), before)
