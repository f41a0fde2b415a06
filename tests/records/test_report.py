"""Reports and histories: columns, text, files, and what they say when something is missing."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest

from logs.reports import report
from safestep import History, JsonLines, StepReport
from safestep.errors import UnknownNameError
from safestep.records.report import json_line, number, plain


def test_history_keeps_the_latest():
    history = History(limit=3)
    for step in range(5):
        history.append(report(step))
    assert history["step"] == [2, 3, 4]
    assert [r.step for r in history] == [2, 3, 4]
    assert history[-1].step == 4
    assert [r.step for r in history[:2]] == [2, 3]


def test_a_silent_probe_leaves_nan():
    history = History()
    history.append(report(0, extras={"sharpness": 2.0}))
    history.append(report(1))
    assert history["sharpness"][0] == 2.0
    assert math.isnan(history["sharpness"][1])


def test_unknown_column_names_those_that_exist():
    history = History()
    history.append(report())
    with pytest.raises(UnknownNameError, match=r"no column 'lr'.*effective_lr"):
        history["lr"]


def test_printed_forms_say_what_matters():
    history = History()
    assert str(history) == "History: no steps yet"
    for step in range(30):
        history.append(report(step))
    text = str(history)
    assert "10 earlier steps not shown" in text
    assert "capped" in text
    assert "effective lr" in str(report())
    assert "effective lr" not in str(report(lrs=(), effective_lrs=()))  # as of jax
    line = str(report(7, message="a word"))
    for words in ("step 7", "capped", "r 4 -> 1", "scale 0.25", "ρ 0.5", "forward-mode/train", "a word"):
        assert words in line


def test_json_lines_round_trip_with_non_finite_numbers_as_texts(tmp_path):
    history = History()
    history.append(report(ratio=math.nan, radius=math.inf, applied_ratio=-math.inf, exact=False))
    row = json.loads(history.to_jsonl(tmp_path / "h.jsonl").read_text())
    assert (row["ratio"], row["radius"], row["applied_ratio"]) == ("nan", "inf", "-inf")
    assert row["exact"] is False
    assert row["status"] == "capped"
    assert row["lrs"] == [0.1, 0.2]
    assert math.isnan(number(row["ratio"]))
    assert number(row["radius"]) == math.inf
    assert math.isnan(number(None))


def test_csv_has_a_header_and_every_step(tmp_path):
    history = History()
    assert "ratio" in History().to_csv(tmp_path / "empty.csv").read_text()
    for step in range(3):
        history.append(report(step, message='with "quotes", commas'))
    with history.to_csv(tmp_path / "h.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert rows[0]["lrs"] == "0.1 0.2"
    assert rows[0]["message"] == 'with "quotes", commas'


def test_pandas_frame():
    history = History()
    history.append(report())
    frame = history.to_pandas()
    assert frame["applied_ratio"].tolist() == [1.0]


def test_without_pandas_the_extra_is_named():
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "import safestep\n"
        "try: safestep.History().to_pandas()\n"
        "except ImportError as error: print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "with its extra 'pandas'" in out


def test_the_log_appends_whole_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    for step in (0, 1):
        sink = JsonLines(path)
        sink(report(step))
        lines = path.read_text()
        assert lines.endswith("\n")
        assert len(lines.splitlines()) == step + 1
        sink.close()


def test_plain_reaches_into_lists_and_mappings():
    assert plain({"a": [math.inf, {"b": (math.nan, 1)}]}) == {"a": ["inf", {"b": ["nan", 1]}]}
    assert json_line({"flag": True, "x": -math.inf}) == '{"flag": true, "x": "-inf"}'


@pytest.mark.parametrize("limit", [-1, 1.5, True, "10"])
def test_history_checks_its_limit(limit):
    with pytest.raises(ValueError, match="how many reports"):
        History(limit)


def predicted(step: int = 0) -> StepReport:
    nothing = {"ratio": math.nan, "applied_ratio": math.nan, "radius": math.nan}
    return report(step, scale=0.5, age=3, predicted_ratio=0.12, method="skip/train", **nothing)


def test_a_prediction_is_shown_as_one():
    assert "r ~0.12 -> ~0.06" in str(predicted())
    history = History()
    history.append(predicted())
    history.append(report(1))
    assert "~0.12" in str(history)
    assert history["predicted_ratio"] == [0.12, pytest.approx(math.nan, nan_ok=True)]
    assert predicted().known_ratio == 0.12
    assert report().known_ratio == 4.0


@pytest.mark.parametrize(
    ("method", "shown"),
    [
        ("skip", "predicted"),
        ("skip/train/mean", "predicted/train/mean"),
        ("CurvatureRadius: skip", "CurvatureRadius: predicted"),
        ("skipRadius: skip/eval", "skipRadius: predicted/eval"),
    ],
)
def test_a_prediction_is_not_printed_as_a_skip_and_the_record_keeps_the_word(method, shown):
    one = replace(predicted(), method=method)
    assert str(one).endswith(f"[{shown}]")
    assert one.row()["method"] == method


def test_a_column_is_read_without_a_row_of_each_step(monkeypatch):
    history = History()
    for step in range(3):
        history.append(report(step))
    whole = history.columns()
    monkeypatch.setattr(StepReport, "row", lambda self: 1 / 0)
    for name, column in whole.items():
        assert history[name] == pytest.approx(column, nan_ok=True) if name == "predicted_ratio" else column
        assert [type(cell) for cell in history[name]] == [type(cell) for cell in column]
