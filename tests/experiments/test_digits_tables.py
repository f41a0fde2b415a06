"""The digits experiments meet the tables of the protocol (seed 7), row by row and column by column."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from safestep.experiments import find
from safestep.experiments.runner.rundir import RunDirectory, read_records, read_results
from safestep.experiments.runner.session import Session
from safestep.records.report import number

ROW_KEYS = {
    "label",
    "optimizer",
    "policy",
    "base_lr",
    "seed",
    "final_acc",
    "peak_r",
    "final_mean_r",
    "final_mean_lr",
    "final_mean_radius",
    "final_cap_fraction",
    "diverged",
}
EPOCH_COLUMNS = {"train_loss", "test_acc", "mean_r", "max_r", "mean_lr", "mean_radius", "cap_fraction", "diverged"}


@dataclass
class Expected:
    """A row of the tables; None where they give no number."""

    label: str
    acc: float
    peak_r: float
    lr: float
    mean_r: float | None = None
    radius: float | None = None
    cap: float | None = None

    def check(self, row) -> None:
        assert not row["diverged"], row
        assert round(row["final_acc"], 3) == self.acc, row
        for found, wanted in ((row["peak_r"], self.peak_r), (row["final_mean_r"], self.mean_r)):
            assert wanted is None or abs(found - wanted) <= 1e-3 * max(1.0, wanted), row
        for found, wanted in ((row["final_mean_lr"], self.lr), (row["final_mean_radius"], self.radius)):
            assert wanted is None or found == pytest.approx(wanted, rel=5e-3), row
        assert self.cap is None or round(row["final_cap_fraction"], 3) == self.cap, row


@dataclass
class Diverged:
    """A row whose numbers are chaotic; only that it diverged is to be met."""

    label: str

    def check(self, row) -> None:
        assert row["diverged"] is True, row


TABLES = {
    "digits-sgd": [
        Expected("fixed 0.05", 0.660, 0.027, 0.0500, cap=0.0),
        Expected("fixed 0.5", 0.953, 18.287, 0.5000, cap=0.0),
        Diverged("fixed 5.0"),
        Expected("capped 0.05", 0.660, 0.027, 0.0500, cap=0.0),
        Expected("capped 0.5", 0.953, 1.000, 0.1422, cap=1.0),
        Expected("capped 5.0", 0.962, 1.000, 0.1655, cap=1.0),
        Expected("pin", 0.962, 1.000, 0.1601, cap=1.0),
    ],
    "digits-momentum": [
        Expected("capped 0.05", 0.947, 1.000, 0.050000, 0.407, 0.104283),
        Expected("capped 0.5", 0.978, 1.000, 0.113370, 1.000, 0.095027),
        Expected("capped 2.0", 0.947, 1.000, 0.165223, 1.000, 0.125937),
        Expected("fixed 0.05", 0.947, 1.128, 0.050000, 0.408, 0.104073),
        Diverged("fixed 0.5"),
        Diverged("fixed 2.0"),
    ],
}


def carry_out(name, path):
    experiment = find(name)
    with RunDirectory(path) as directory:
        session = Session(directory, experiment, experiment.settings(), [7])
        for _ in session.run(jobs=1):
            pass
    return read_results(path)["rows"], read_records(path)[0]


def check_records(rows, records, epochs):
    """Every run kept every epoch, and its row is told by them."""
    runs = {row["label"]: [record for record in records if record["label"] == row["label"]] for row in rows}
    assert [record["label"] for record in records] == [row["label"] for row in rows for _ in range(epochs)]
    for row in rows:
        assert row.keys() == ROW_KEYS
        lines = runs[row["label"]]
        assert [line["epoch"] for line in lines] == list(range(1, epochs + 1))
        for line in lines:
            assert line.keys() == {"kind", "label", "optimizer", "policy", "base_lr", "seed", "epoch"} | EPOCH_COLUMNS
            assert line["kind"] == "epoch"
            assert all(line[key] == row[key] for key in ("label", "optimizer", "policy", "base_lr", "seed"))
        last, peaks = lines[-1], [number(line["max_r"]) for line in lines]
        assert row["final_acc"] == last["test_acc"]
        assert number(row["peak_r"]) == (math.nan if any(map(math.isnan, peaks)) else max(peaks))
        for key in ("mean_r", "mean_lr", "mean_radius", "cap_fraction"):
            assert row[f"final_{key}"] == last[key]


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_the_table_is_met(name, tmp_path):
    rows, records = carry_out(name, tmp_path)
    assert [row["label"] for row in rows] == [expected.label for expected in TABLES[name]]
    for row, expected in zip(rows, TABLES[name], strict=True):
        expected.check(row)
        assert row["optimizer"] == "SGD"
        assert row["policy"] == {"fixed": "fixed", "capped": "cap", "pin": "pin"}[row["label"].split()[0]]
        assert row["base_lr"] == (None if row["label"] == "pin" else float(row["label"].split()[1]))
        assert row["seed"] == 7
    check_records(rows, records, epochs=24 if name == "digits-sgd" else 20)


@pytest.mark.slow
def test_adam_comes_out_of_the_same_code(tmp_path):
    """No table of it is given: what the definitions say of any table must hold."""
    rows, records = carry_out("digits-adam", tmp_path)
    check_records(rows, records, epochs=20)
    capped, fixed = ({row["base_lr"]: row for row in rows if row["policy"] == policy} for policy in ("cap", "fixed"))
    assert list(capped) == list(fixed) == [0.001, 0.5, 2.0]
    assert {row["optimizer"] for row in rows} == {"Adam"}
    assert [row["diverged"] for row in rows] == [False, False, False, False, True, True]
    for row in capped.values():
        assert row["peak_r"] <= 1.0 + 1e-9
        assert row["final_acc"] > 0.95
    assert fixed[0.001]["peak_r"] < 1.0  # never beyond the target: the cap has nothing to do, bit for bit
    same = ("final_acc", "peak_r", "final_mean_r", "final_mean_lr", "final_mean_radius", "final_cap_fraction")
    assert [capped[0.001][key] for key in same] == [fixed[0.001][key] for key in same]
    for lr in (0.5, 2.0):
        assert fixed[lr]["peak_r"] > 100
        assert fixed[lr]["final_acc"] < 0.5
        assert capped[lr]["final_mean_lr"] < 0.1 * lr
