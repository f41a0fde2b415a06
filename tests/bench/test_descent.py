"""`safestep bench descent`: that all ways do the same work, and what is written of them."""

from __future__ import annotations

import json
import math

import pytest
import torch
from typer.testing import CliRunner

from safestep.bench.many_runs import (
    ALONE,
    ALONE_BACKWARD,
    AUTOGRAD,
    CLOSED,
    FLOATS,
    PEERS,
    QUICK,
    SCHEDULE,
    ways,
)
from safestep.cli import app as cli
from safestep.descent import PLANE, Gaussian, exact_law, simulate

WAYS = (CLOSED, AUTOGRAD, FLOATS, ALONE, ALONE_BACKWARD)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "descent"
    told = CliRunner().invoke(cli.app, ["bench", "descent", "--quick", "--threads", "1", "--out", str(path)])
    assert told.exit_code == 0, told.output
    return path, told, json.loads((path / "results.json").read_text())


@pytest.mark.parametrize("name", WAYS)
def test_every_way_walks_the_same_descent(name):
    walk, _ = ways(QUICK)[name]
    expected = simulate(PLANE, schedule=SCHEDULE, steps=50).last
    torch.testing.assert_close(walk(1, 50, 0.0), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", WAYS)
def test_every_way_draws_noise_of_the_same_scale(name):
    walk, _ = ways(QUICK)[name]
    runs, steps = 400, 20
    rates = [0.1 * SCHEDULE(t) for t in range(2, 2 + steps)]
    law = exact_law(PLANE, rates, noise=Gaussian(2.0), at=[steps])
    last = walk(runs, steps, 2.0)
    assert last.shape == (runs, 2)
    spread = (last - law.mean[0]).square().mean(0) / law.variance[0]
    assert ((spread - 1).abs() < 5 * math.sqrt(2 / runs)).all()


def test_results_are_complete(run):
    _, _, results = run
    assert results["bench"] == "descent"
    assert results["settings"]["runs"] == QUICK.runs
    assert results["settings"]["quick"] is True
    assert results["environment"]["began"] <= results["finished"]
    times, peaks = results["rows"][:5], results["rows"][5:]
    assert [row["method"] for row in times] == list(WAYS)
    for row in times:
        assert row["noiseless_difference"] < 1e-12
        assert 0 < row["ns_low"] <= row["ns_median"] <= row["ns_high"]
        for column in PEERS.get(row["method"], {}):
            assert 0 < row[f"{column}_low"] <= row[f"{column}_median"] <= row[f"{column}_high"]
    assert [row["steps"] for row in peaks] == [QUICK.steps, 10 * QUICK.steps]


def test_memory_does_not_grow_with_the_number_of_steps(run):
    _, _, results = run
    first, longer = (row["peak_bytes"] for row in results["rows"][5:])
    assert 0 < longer <= 1.01 * first


def test_the_tables_hold_every_row_on_screen_and_for_a_page(run):
    path, told, results = run
    page = (path / "tables.md").read_text()
    assert "…" not in told.stdout
    for row in results["rows"]:
        assert any(line.startswith(f"| {row['method']} ") for line in page.splitlines())
        assert any(line.startswith(row["method"]) for line in told.stdout.splitlines())
    assert told.stdout.splitlines()[-2:] == [f"written: {path / name}" for name in ("results.json", "tables.md")]


def test_the_results_of_something_else_stay(tmp_path):
    (tmp_path / "results.json").write_text('{"experiment": "digits-sgd"}')
    told = CliRunner().invoke(cli.app, ["bench", "descent", "--quick", "--out", str(tmp_path)])
    assert told.exit_code == 2
    assert "was not written by `safestep bench`" in told.stderr
