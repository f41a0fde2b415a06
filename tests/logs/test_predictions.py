"""Predictions of r in logs: a column of their own, and logs that were written before there was one."""

from __future__ import annotations

import csv
import json
import math

import pytest

from logs.reports import report
from safestep import Status
from safestep.logs import Csv, read
from safestep.logs.columns import numbers
from safestep.records.report import LATER, json_line
from zoo.loop import Loop


def test_of_a_run_what_was_skipped_has_a_prediction_and_nothing_else_of_r():
    for one in Loop().steps(20).reports:
        skipped = "skip" in one.method
        assert skipped is one.predicted is (one.age > 0)
        assert [math.isnan(value) for value in (one.ratio, one.applied_ratio, one.radius)] == [skipped] * 3
        drawn = numbers(one)
        assert ("predicted_ratio" in drawn) is skipped
        assert ("ratio" in drawn) is ("applied_ratio" in drawn) is ("radius" in drawn) is not skipped


OLD = {"status": Status.INSIDE, "ratio": 0.12, "applied_ratio": 0.12, "radius": 0.5, "scale": 1.0, "age": 3}


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_an_old_log_is_read_with_its_predictions_where_they_belong(kind, tmp_path):
    path, rows = tmp_path / f"old.{kind}", [report(0).row(), report(1, **OLD).row()]
    for row in rows:
        for name in LATER:
            del row[name]
    if kind == "jsonl":
        path.write_text("".join(json_line(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(
                {k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in row.items()} for row in rows
            )
        sink = Csv(path)
        sink(report(2))  # a log goes on, and gains the column
        sink.close()
    measured, guessed, *later = read(path)
    assert (measured.ratio, measured.predicted) == (report(0).ratio, False)
    assert (guessed.predicted_ratio, guessed.age) == (0.12, 3)
    assert all(map(math.isnan, (guessed.ratio, guessed.applied_ratio, guessed.radius)))
    assert [one.predicted for one in later] == [False] * len(later)
    assert json.loads(json_line(guessed.row()))["ratio"] == "nan"
