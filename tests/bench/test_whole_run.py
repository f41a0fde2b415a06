"""`safestep bench run`: the arithmetic of its table, that everyone trains the same run, and what it leaves behind."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from safestep.bench import whole_run
from safestep.bench.bench_tables import RUN
from safestep.bench.contestants import AGAIN, CLIP, PLAIN
from safestep.bench.measure import draw
from safestep.bench.tuned_cases import tuned_cases
from safestep.bench.whole_run import GUARDS, RunEntrant, Runner, Turns, overheads, runners
from safestep.cli import app as cli
from safestep.policy import Watch
from safestep.radius import SoftmaxRadius

CPU = torch.device("cpu")
CASE = tuned_cases(quick=True)["mlp"]
TURNS = Turns(rounds=2, stretches=3)
WATCHED = "watched"


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(whole_run, "GUARDS", {WATCHED: (SoftmaxRadius(method="exact"), Watch())})
    return [RunEntrant(PLAIN), RunEntrant(WATCHED)]


def weights(runner):
    return torch.cat([parameter.detach().flatten() for parameter in runner.model.parameters()])


def test_a_run_takes_the_sum_of_its_stretches_each_by_its_median_over_rounds():
    its = [[2.0, 4.0, 6.0, 9.0, 1.0, 1.0], [2.0, 5.0, 6.0, 9.0, 1.0, 1.0], [8.0, 3.0, 6.0, 9.0, 100.0, 1.0]]
    plain = [[1.0, 3.0, 5.0, 5.0, 1.0, 1.0], [1.0, 9.0, 5.0, 5.0, 1.0, 1.0], [1.0, 1.0, 5.0, 5.0, 100.0, 1.0]]
    runs = [[{"it": i, "plain": p} for i, p in zip(*run, strict=True)] for run in zip(its, plain, strict=True)]
    found = overheads(runs, "it", "plain")
    assert found["run_seconds"] == 2 + 4 + 6 + 9 + 1 + 1
    assert found["run_ratio"] == pytest.approx(23 / 16)
    assert found["thirds"] == pytest.approx([6 / 4, 15 / 10, 2 / 2])
    ratios = sorted(i / p for a, b in zip(its, plain, strict=True) for i, p in zip(a, b, strict=True))
    assert found["ratio_median"] == pytest.approx((ratios[8] + ratios[9]) / 2)
    assert found["ratio_mean"] == pytest.approx(sum(ratios) / 18)


def test_a_machine_that_slows_down_for_a_round_changes_nothing():
    runs = [[{"it": 1.5 * speed, "plain": speed}] * 3 for speed in (1.0, 20.0, 1.0)]
    found = overheads(runs, "it", "plain")
    assert (found["run_seconds"], found["run_ratio"], found["ratio_high"]) == (4.5, 1.5, 1.5)


def test_a_run_warms_up_and_ends_on_a_cosine():
    runner, rates = Runner(RunEntrant(PLAIN), replace(CASE, steps=40, rate=0.5), CPU), []
    for batch in draw(CASE, CPU, 40, seed=0):
        rates.append(runner.optimizer.param_groups[0]["lr"])
        runner.train([batch])
    assert rates[:4] == pytest.approx([0.5 * (t + 1) / 4 for t in range(4)])
    assert rates[4:] == pytest.approx([0.5 * (1 + math.cos(math.pi * t / 36)) / 2 for t in range(36)])


def test_a_plain_run_is_the_loop_that_anyone_would_write():
    runner, batches = Runner(RunEntrant(PLAIN), CASE, CPU), draw(CASE, CPU, CASE.steps, seed=3)
    torch.manual_seed(0)
    model = CASE.build()
    optimizer = torch.optim.AdamW(model.parameters())
    cosine = [(1 + math.cos(math.pi * t / (CASE.steps - 1))) / 2 for t in range(CASE.steps - 1)]
    for (inputs, labels), factor in zip(batches, [1.0, *cosine], strict=True):  # a tenth of six steps: one warms up
        optimizer.param_groups[0]["lr"] = factor * CASE.rate
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    runner.train(batches[:2])
    runner.train(batches[2:])
    expected = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    torch.testing.assert_close(weights(runner), expected, rtol=1e-5, atol=1e-7)


def test_everyone_takes_the_same_batches_at_the_same_rates(watched, monkeypatch):
    made, seen = [], []

    class Witness(Runner):
        def __init__(self, entry, case, device):
            super().__init__(entry, case, device)
            made.append(self)

        def train(self, batches):
            rate = self.optimizer.param_groups[0]["lr"]
            seen.append((self, rate, torch.cat([inputs for inputs, _ in batches]).clone()))
            super().train(batches)

    monkeypatch.setattr(whole_run, "Runner", Witness)
    rows = whole_run.whole_run(CASE, watched, CPU, TURNS, lambda line: None)
    timed = made[2:]  # the first two are those whose memory was counted
    assert [one.entry for one in timed] == watched * TURNS.rounds
    runs = [[(rate, batch) for who, rate, batch in seen if who is one] for one in timed]
    assert all(len(run) == TURNS.stretches for run in runs)
    for run in runs[1:]:
        assert [rate for rate, _ in run] == [rate for rate, _ in runs[0]]
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(run, runs[0], strict=True))
    assert not torch.equal(runs[0][0][1], runs[0][1][1])  # each stretch has batches of its own
    assert all(torch.equal(weights(one), weights(timed[0])) for one in timed)
    assert not torch.equal(weights(timed[0]), weights(Runner(watched[0], CASE, CPU)))
    plain, guarded = rows
    assert (guarded["loss_beside"], guarded["loss"]) == (0.0, plain["loss"])
    assert guarded["statuses"] == {"watched": CASE.steps}


def test_rows_are_those_of_what_was_timed(watched):
    plain, guarded = whole_run.whole_run(CASE, watched, CPU, TURNS, lambda line: None)
    for row in (plain, guarded):
        assert row["flag"] == ""
        assert [len(run) for run in row["seconds"]] == [TURNS.stretches] * TURNS.rounds
        by_stretch = [sum(pair) / 2 for pair in zip(*row["seconds"], strict=True)]  # the median of two
        assert row["run_seconds"] == pytest.approx(sum(by_stretch))
        assert row["ms_median"] == pytest.approx(1e3 * sum(by_stretch) / CASE.steps)
    assert guarded["run_ratio"] == pytest.approx(guarded["run_seconds"] / plain["run_seconds"])
    assert guarded["extra_peak_bytes"] >= 0.9 * 4 * sum(p.numel() for p in CASE.build().parameters())
    assert 0 < guarded["r_low"] <= guarded["r_median"] <= guarded["r_high"]
    assert "r_median" not in plain


def test_a_run_that_did_not_survive_is_flagged():
    (plain,) = whole_run.whole_run(CASE.at(1e30), [RunEntrant(PLAIN)], CPU, TURNS, lambda line: None)
    assert plain["flag"] == "the parameters are not finite"


def bench(*words):
    return CliRunner().invoke(cli.app, ["bench", "run", "--threads", "1", *words])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "run"
    told = bench("--quick", "--models", "mlp,gpt-1024", "--factor", "2", "--out", str(path))
    assert told.exit_code == 0, told.output
    return path, told, json.loads((path / "results.json").read_text())


def test_results_are_complete(run):
    _, _, results = run
    assert results["bench"] == "run"
    assert results["settings"] == {
        "models": ["mlp", "gpt-1024"],
        "rounds": 2,
        "stretches": 3,
        "factor": 2.0,
        "device": "cpu",
        "threads": 1,
        "quick": True,
    }
    assert results["environment"]["began"] <= results["finished"]
    names = [PLAIN, AGAIN, CLIP, *GUARDS]
    assert [entry.method for entry in runners()] == names
    assert [(row["model"], row["method"]) for row in results["rows"]] == [
        (model, name) for model in ("mlp", "gpt-1024") for name in names
    ]
    for row in results["rows"]:
        steps = tuned_cases(quick=True)[row["model"]].steps
        assert row["flag"] == ""
        assert (
            sum(row["statuses"].values()) == sum(row["methods"].values()) == (steps if row["method"] in GUARDS else 0)
        )
        assert (row["peak_bytes"] is None) == (row["method"] == AGAIN)
        assert math.isfinite(row["loss"])
        if row["method"] in (PLAIN, AGAIN):
            assert row["loss_beside"] == 0.0
        if row["method"] == PLAIN:
            assert (row["run_ratio"], row["thirds"], row["ratio_median"]) == (1.0, [1.0] * 3, 1.0)


def test_the_tables_hold_every_row_on_screen_and_for_a_page(run):
    path, told, results = run
    lines = (path / "tables.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert len(cells) == len(results["rows"]) + 2  # headings of two tables
    assert all(len(row) == len(RUN) for row in cells)
    assert "…" not in told.stdout
    assert all(cell in told.stdout for row in cells for cell in row)
    assert told.stdout.splitlines()[-2:] == [f"written: {path / name}" for name in ("results.json", "tables.md")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--models", "gpt-8129"], "no model 'gpt-8129'. Did you mean gpt-8192? There are: mlp, gpt-1024"),
        (["--factor", "0"], "factor=0: expected a positive number"),
        (["--factor", "inf"], "factor=inf: expected a positive number"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = bench(*words, "--quick")
    assert told.exit_code == 2, told.output
    assert told.stderr.startswith(f"safestep: {message}")
    assert list(tmp_path.iterdir()) == []
