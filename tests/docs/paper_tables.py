"""The tables of docs/paper.md, from the records of its runs. Printed by `python tests/docs/paper_tables.py`."""

from __future__ import annotations

import gzip
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safestep.experiments import find
from safestep.experiments.paper.paper_experiment import near

RECORDS = Path(__file__).parents[2] / "docs" / "records" / "paper"
"""Of each study ``results.json``, and as NAME.jsonl.gz what figures draw of ``records.jsonl``, to four digits."""
STUDIES = ("phase-transition", "random-directions", "temperature")
TRAINED = ("rate-spikes", "resnet")
"""Of these the first has no courses that a figure would draw."""


def results(study: str) -> dict[str, Any]:
    """Return the record of a study."""
    return dict(json.loads(gzip.decompress((RECORDS / f"{study}.json.gz").read_bytes())))


def rows(study: str, steps: int | None = None) -> list[dict[str, Any]]:
    """Return the rows of a study: all, or those after so many steps of training."""
    return [row for row in results(study)["rows"] if steps is None or row["steps"] == steps]


def summary(study: str) -> list[dict[str, Any]]:
    """Return what the rows of a study come to, by the code as it is."""
    return list(find(study).summarise(rows(study)))


def percent(share: float) -> str:
    """Return a share as the page writes it."""
    return f"{share:.0%}".replace("%", " %")


def ends(values: list[float], form: str) -> str:
    """Return the least and the largest."""
    return f"{min(values):{form}} to {max(values):{form}}"


def within(values: list[float]) -> str:
    """Return how many are where the paper has the loss of accuracy."""
    return f"{sum(1 <= value <= 10 for value in values)} of {len(values)}"


def single_steps() -> Iterator[str]:
    """Yield what phase-transition and random-directions found, beside the paper."""
    phase, steps = "phase-transition", results("phase-transition")["settings"]["checkpoints"]
    *early, late = steps
    kept = [f"{percent(min(row['kept'] for row in rows(phase, one)))} after {one}" for one in steps]
    half = {one: [row["collapse"] for row in rows(phase, one)] for one in steps}
    down, random = [row["onset"] for row in rows(phase)], [onset for row in rows(phase) for onset in row["onsets"]]
    twenty = [onset for row in rows("random-directions") for onset in row["onsets"]]
    *models, every, _ = summary("random-directions")
    inside = {key: ends([row[key] for row in models], ".3f") for key in ("spread", "spread_length")}
    middle, close = statistics.median(twenty), near(twenty).split()[0]
    first = kept[0].replace(f"after {steps[0]}", f"after {steps[0]} steps of training")
    yield "| | paper | ours |"
    yield "|---|---|---|"
    yield f"| accuracy kept by any step of r ≤ 1, least of all | all | {', '.join([first, *kept[1:]])} |"
    yield f"| r at which half is lost, down the gradient, after {late} steps | 1 to 10 | {ends(half[late], '.2g')}, \
{within(half[late])} within 1 to 10 |"
    yield f"| the same after {' and after '.join(map(str, early))} steps | 1 to 10 | \
{within([one for step in early for one in half[step]])} within |"
    yield f"| loss × 1.1, within a factor of 2 of r = 1 | near 1 | {near(down)} gradients, \
{near(random)} random directions |"
    yield f"| loss × 2 in {len(twenty)} random directions, {late} steps | near 1 | {ends(twenty, '.2g')}, \
median {middle:.2g}; {close} within a factor of 2, {sum(one < 1 for one in twenty)} below 1 |"
    yield f"| spread of these, within a model | | {inside['spread']} in r, {inside['spread_length']} in length |"
    yield f"| spread of these, over all six models | | {every['spread']:.3f} in r, \
{every['spread_length']:.3f} in length |"


def temperatures() -> Iterator[str]:
    """Yield the spread of the onset over temperatures in every unit, beside the paper."""
    yield "| spread of the onset over temperatures | paper | ours | standard error | apart |"
    yield "|---|---|---|---|---|"
    for row in summary("temperature"):
        apart = f"{row['apart']:+#.2g}".rstrip(".").replace("-", "−")
        yield f"| {row['label']} | {row['paper']} | {row['ours']:.3f} | {row['error']:.3f} | {apart} |"


def after_spikes() -> Iterator[str]:
    """Yield the accuracy after a spike of 10 000 times the rate, beside the paper."""
    yield "| accuracy after ×10 000 | paper, median | ours, median | mean | standard error | apart |"
    yield "|---|---|---|---|---|---|"
    for row in summary("rate-spikes"):
        if row["factor"] in (1.0, 1e4):
            paper = f"{100 * row['paper']:.1f}" if row["paper"] else ""
            apart = f"{row['apart']:+.1f}".replace("-", "−") if row["paper"] else ""
            ours = " | ".join(f"{100 * row[key]:.1f}" for key in ("median", "ours", "error"))
            what = f"{row['architecture']}, {row['method']}{', no spike' if row['factor'] == 1.0 else ''}"
            yield f"| {what} | {paper} | {ours} | {apart} |"


def natural() -> Iterator[str]:
    """Yield accuracy and r of the residual network at every rate and pin, and what comes before jumps."""
    yield "| | accuracy, paper | ours | largest r, paper | ours | steps of r > 1, paper | ours | jumps | after r > 1 \
| other steps | chance |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for row in summary("resnet"):
        known, some = row["paper_acc"] is not None, row["after"] is not None
        told = [
            f"{100 * row['paper_acc']:.1f}" if known else "",
            f"{100 * row['final_acc']:.1f}",
            f"{row['paper_max_r']:.3g}" if known else "",
            f"{row['max_r']:.3g}",
            percent(row["paper_over"]) if known else "",
            percent(row["over"]),
            str(row["jumps"]),
            percent(row["after"]) if some else "",
            percent(row["ordinary"]) if some else "",
            f"{row['chance_1']:.2f}" if some else "",
        ]
        yield f"| {row['label']} | {' | '.join(told)} |"


TABLES = (single_steps, temperatures, after_spikes, natural)

if __name__ == "__main__":
    for table in TABLES:
        print(*table(), sep="\n")
        print()
