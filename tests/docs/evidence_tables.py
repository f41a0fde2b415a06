"""The tables of docs/evidence.md, from the records of its runs. Printed by `python tests/docs/evidence_tables.py`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safestep.experiments import find

RECORDS = Path(__file__).parents[2] / "docs" / "records" / "evidence"
"""Each the ``results.json`` of a run, without its ``records.jsonl``: enough for `safestep report`."""
STUDIES = {
    "rates": ("rates-gpt", "rates-mlp", "rates-cnn-vit"),
    "no-rate": ("no-rate-gpt", "no-rate-digits"),
    "spikes": ("spikes",),
}
"""Of each study its records, which together are one run of it."""


def summary(study: str) -> list[dict[str, Any]]:
    """Return what the rows of all records of a study come to, by the code as it is."""
    files = [RECORDS / f"{name}.json.gz" for name in STUDIES[study]]
    rows = [json.loads(gzip.decompress(file.read_bytes()))["rows"] for file in files if file.exists()]
    return [row for part in rows for row in find(study).summarise(part)]


def gap(value: Any, judged: str) -> str:
    """Return a gap in nats, or in points of accuracy."""
    if value is None:
        return "–"
    number = float(value)
    told = f"{number:+.3f}" if judged == "loss" else f"{100 * number:+.1f}"
    return {"+inf": "lost"}.get(told, told)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def rates() -> Iterator[str]:
    """Yield the share of good runs from the tuned rate up, and the worst gap there, by task, optimizer and method."""
    rows = summary("rates")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    yield _line(["task, optimizer", *methods])
    yield _line(["---"] * (1 + len(methods)))
    for case in dict.fromkeys((row["task"], row["optimizer"]) for row in rows):
        cells = [
            f"{row['above']:.0%}, {gap(row['worst'], row['judged'])}".replace("%", " %")
            for method in methods
            for row in rows
            if (row["task"], row["optimizer"], row["method"]) == (*case, method)
        ]
        yield _line([", ".join(case), *cells])


def no_rate() -> Iterator[str]:
    """Yield the median gap of everybody, by task, and the time of a step as the median over tasks."""
    rows = summary("no-rate")
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    yield _line(["method", *tasks])
    yield _line(["---"] * (1 + len(tasks)))
    for method in dict.fromkeys(row["method"] for row in rows):
        own = {row["task"]: gap(row["median"], row["judged"]) for row in rows if row["method"] == method}
        yield _line([method, *(own.get(task, "–") for task in tasks)])


def spikes() -> Iterator[str]:
    """Yield of how many runs of all tasks the loss came back, and the worst median gap of a task, by disturbance."""
    rows = summary("spikes")
    wrongs = list(dict.fromkeys(row["wrong"] for row in rows))
    yield _line(["method", *wrongs])
    yield _line(["---"] * (1 + len(wrongs)))
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for wrong in wrongs:
            own = [row for row in rows if (row["method"], row["wrong"]) == (method, wrong)]
            runs, back = sum(row["runs"] for row in own), sum(row["recovered"] * row["runs"] for row in own)
            worst = max(own, key=lambda row: float(row["median"]))
            cells.append(f"{back:.0f} of {runs}, {gap(worst['median'], worst['judged'])}")
        yield _line([method, *cells])


TABLES = {"rates": rates, "no-rate": no_rate, "spikes": spikes}

if __name__ == "__main__":
    for table in TABLES.values():
        print(*table(), sep="\n")
        print()
