"""The numbers of docs/default-limit.md are those of the runs that were measured."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
STEPS = 300
"""Of the runs whose rows do not say otherwise."""
RECORD = DOCS / "records" / "limits-held-out.json"
"""Rows of ``summary`` in the ``results.json`` of held-out runs, see the commands on the page."""


def rows():
    """Return the lines of the table: gaps to the best plain run, in nats or in points of accuracy."""
    for row in json.loads(RECORD.read_text(encoding="utf-8")):
        unit, scale = ("nats", 1.0) if row["judged"] == "loss" else ("points", 100.0)
        if row["statistic"] is None:
            continue
        numbers = [row[f"{way}_{what}"] for way in ("rates", "pin", "decay") for what in ("worst", "mean")]
        digits = 3 if unit == "nats" else 1
        told = " | ".join(f"{scale * number:+.{digits}f}" for number in numbers)
        name = {"default": "default", "largest": "largest spread"}[row["statistic"]]
        task = row["task"] if row["steps"] == STEPS else f"{row['task']}, {row['steps']} steps"
        yield f"| {task} | {', '.join(row['optimizers'])} | {name} | {unit} | {told} |"


def test_the_table_is_that_of_the_record():
    page = (DOCS / "default-limit.md").read_text(encoding="utf-8")
    table = [line for line in page.splitlines() if re.match(r"\| (text|digits)-", line)]
    assert table == list(rows())


def tuning():
    """Return the lines of the table of SGD's targets: how capped runs end, the mean of the tuning seeds."""
    rows = json.loads((DOCS / "records" / "limits-sgd.json").read_text(encoding="utf-8"))
    assert {row["seed"] for row in rows} == {0, 1}
    ends: dict[tuple[str, str, float], dict[float, list[float]]] = {}
    for row in rows:
        end = row["final_loss"] if row["judged"] == "loss" else 100 * row["final_acc"]
        ends.setdefault((row["task"], row["optimizer"], row["rate"]), {}).setdefault(row["target"], []).append(end)
    for (task, optimizer, rate), by_target in ends.items():
        digits = 2 if task == "text-gpt" else 1
        cells = [f"{statistics.fmean(by_target[target]):.{digits}f}" for target in sorted(by_target)]
        yield f"| {optimizer} on {task}, ×{rate:g} | {' | '.join(cells)} |"


def test_the_targets_of_sgd_were_chosen_by_their_record():
    page = (DOCS / "default-limit.md").read_text(encoding="utf-8")
    assert "\n".join(tuning()) in page


def test_the_page_tells_the_worst_and_the_mean_of_the_long_text():
    both = [r for r in json.loads(RECORD.read_text()) if r["task"] == "text-gpt" and r["statistic"] == "default"]
    longer = max(both, key=lambda row: row["steps"])
    page = (DOCS / "default-limit.md").read_text(encoding="utf-8")
    told = f"{longer['rates_mean']:.2f} behind on average, {longer['rates_worst']:.2f} at 300 times the rate"
    assert f"**Over {longer['steps']} steps the GPT is not as good as tuned** where the target stays: {told}" in page
