"""The tables of docs/paper.md on radii over training, from the records of their runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from docs.paper_tables import ends, percent, rows, summary
from safestep.experiments.report.tables import cell
from safestep.experiments.runner.experiment import grouped
from safestep.records.report import number

TRACKS = {"bottlenecks": [7, 8, 9], "ghosts": [7, 8], "activations": [7, 8, 9]}
"""Every study, and its seeds on the page."""


def apart(row: dict[str, Any]) -> str:
    """Return by how many standard errors a number is above the paper's, as the page writes it."""
    return "–" if row["apart"] is None else f"{row['apart']:+#.2g}".rstrip(".").replace("-", "−")


def bottlenecks() -> Iterator[str]:
    """Yield which part binds and its radius, by third of the training, beside the paper."""
    yield "| third: part | paper | ours | standard error | apart |"
    yield "|---|---|---|---|---|"
    for row in summary("bottlenecks"):
        ours, paper, error = (cell(float(row[key]), "#.3g") for key in ("ours", "paper", "error"))
        yield f"| {row['label']} | {paper} | {ours} | {error} | {apart(row)} |"


def ghosts() -> Iterator[str]:
    """Yield where the zeros lie, least and largest over seeds and models, at every moment of the training."""
    yield "| steps | exact radius / bound | median sample / bound | two-class formula too long | bound, a length |"
    yield "|---|---|---|---|---|"
    for group in grouped(rows("ghosts"), "steps"):
        exact, sample, beyond, bound = ([row[key] for row in group] for key in ("exact", "sample", "beyond", "bound"))
        too_long = f"{percent(min(beyond))} to {percent(max(beyond))}"
        far = f"{ends(exact, '.2f')} | {ends(sample, '.1f')}"
        yield f"| {group[0]['steps']} | {far} | {too_long} | {ends(bound, '.2g')} |"


def activations() -> Iterator[str]:
    """Yield where singularities lie, as the paper has it and in networks, and where the loss doubles."""
    yield "| activation | distance, paper | distance | r of the nearest, 300 steps | r of loss × 2, 300 steps |"
    yield "|---|---|---|---|---|"
    for one in summary("activations"):
        name, steps = one["label"].removesuffix(" steps").split(", ")
        if steps == "300":
            group = [row for row in rows("activations", 300) if row["architecture"] == name]
            paper, ours = ("none" if one[key] == "inf" else f"{one[key]:.3f}" for key in ("paper", "distance"))
            limits, onsets = ([number(row[key]) for row in group] for key in ("limit", "onset"))
            where = "none" if limits[0] == math.inf else ends(limits, ".2g")
            yield f"| {name} | {paper} | {ours} | {where} | {ends(onsets, '.2g')} |"


TRACK_TABLES = (bottlenecks, ghosts, activations)

if __name__ == "__main__":
    for table in TRACK_TABLES:
        print(*table(), sep="\n")
        print()
