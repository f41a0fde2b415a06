"""The costs told in README and docs/cost.md are those of the record."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from safestep.bench.bench_tables import percent, who

DOCS = Path(__file__).parents[2] / "docs"
RECORD = json.loads((DOCS / "records" / "cost.json").read_text(encoding="utf-8"))
"""Of ``results.json`` of the two commands on the page, the columns that are told."""


def cells(kind, told):
    """Return the cells of a table by whose row it is."""
    rows: dict[str, list[str]] = {}
    for row in RECORD[kind]:
        rows.setdefault(who(row), []).append(told(row))
    return rows


def shown(page, heading):
    """Return the cells of the lines of a table under a heading of a page."""
    part = page.read_text(encoding="utf-8").partition(heading)[2].partition("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    return {first: cells for first, *cells in lines[1:]}


@pytest.mark.parametrize(
    ("heading", "kind", "told"),
    [
        ("## A whole run", "run", lambda row: percent(row["run_ratio"])),
        ("## Small models", "fixed", lambda row: f"{row['added_us']:.0f}"),
    ],
)
def test_the_tables_of_the_page_are_those_of_the_record(heading, kind, told):
    known = cells(kind, told)
    table = {name: numbers for name, numbers in shown(DOCS / "cost.md", heading).items() if name in known}
    assert len(table) >= 5
    assert table == {name: known[name] for name in table}


def test_the_readme_tells_what_the_record_says():
    known = cells("run", lambda row: percent(row["run_ratio"]))
    table = shown(DOCS.parent / "README.md", "## What it costs")
    names = {
        "`clip_grad_norm_`": "clip_grad_norm_",
        "the default": "Cap, default limit",
        "`Pin()`": "Pin, default limit",
    }
    assert {names[name]: numbers for name, numbers in table.items()} == {name: known[name] for name in names.values()}
    mlp, gpt = (row["ms_median"] for row in RECORD["run"] if row["method"] == "plain step")
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert f"| | MLP, {mlp:.0f} ms | GPT, {gpt:.0f} ms |" in readme


def test_the_quartiles_of_r_are_those_of_the_record():
    text = " ".join((DOCS / "cost.md").read_text(encoding="utf-8").split())
    low, high, *others = re.search(
        r"MLP's quartiles are ([\d.]+) to ([\d.]+), the GPT's ([\d.]+) to ([\d.]+)", text
    ).groups()
    found = [row for row in RECORD["run"] if row["method"] == "Cap, default limit"]
    assert [low, high, *others] == [f"{row[key]:.2g}" for row in found for key in ("r_low", "r_high")]


def test_the_losses_beside_plain_are_those_of_the_record():
    text = " ".join((DOCS / "cost.md").read_text(encoding="utf-8").split())
    pin, cap = (
        [row["loss_beside"] for row in RECORD["run"] if row["method"] == f"{name}, default limit"]
        for name in ("Pin", "Cap")
    )
    told = f"it ended {-pin[0]:.3f} nats ahead of the plain run on the MLP and {pin[1]:.3f} behind on the GPT"
    assert f"{told}, the cap {cap[0]:.3f} behind and {-cap[1]:.3f} ahead" in text
