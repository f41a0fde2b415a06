"""The first picture of README and evidence.md, from records, by `PYTHONPATH=tests python -m docs.evidence_picture`."""

from __future__ import annotations

import math
import statistics
import sys
from pathlib import Path

from docs.evidence_tables import rows_of
from safestep.experiments.evidence.evidence_summary import beside_tuned
from safestep.plots import ends_over_rates
from safestep.plots.panel import panel, shared_legend, single_figure
from safestep.plots.style import COLOURS, WIDTH

IMAGES = Path(__file__).parents[2] / "docs" / "images"
_AVERAGED = "safestep, averaged"


def ends() -> dict[str, list[tuple[float, float]]]:
    """Return the median end of each method at each rate on the GPT."""
    found: dict[str, dict[float, list[float]]] = {}
    rows = [row for row in rows_of("rates-gpt") if row["optimizer"] == "adamw"]
    averaged = [{**row, "method": _AVERAGED} for row in rows_of("rates-averaged-gpt") if row["method"] == "safestep"]
    for row in [*rows, *averaged]:
        if row["schedule"] == "cosine" and row["role"] == "held-out":
            end = math.inf if row["lost"] else row["final_loss"]
            found.setdefault(row["method"], {}).setdefault(row["rate"], []).append(end)
    return {
        method: [(rate, statistics.median(ends)) for rate, ends in sorted(points.items())]
        for method, points in found.items()
    }


def tuned(record: str, optimizer: str) -> float:
    """Return what the tuned plain run of an optimizer ends with, of the median seed."""
    rows = [row for row in rows_of(record) if row["optimizer"] == optimizer]
    return statistics.median(row["final_loss"] for row in beside_tuned(rows) if row["tuned"])


def draw(folder: Path) -> Path:
    """Write the picture into a folder."""
    figure = single_figure(1.35 * WIDTH, 4.3)
    levels = {
        "tuned AdamW": tuned("rates-gpt", "adamw"),
        "tuned, averaged": tuned("rates-averaged-gpt", "averaged-adamw"),
    }
    ours = {"safestep": COLOURS["cap"], _AVERAGED: COLOURS["pin"]}
    title, y = "A tiny GPT by AdamW: how runs end, by rate", "held-out loss, nats"
    ends_over_rates(ends(), levels=levels, high=4.0, y=y, ours=ours, title=title, ax=panel(figure))
    shared_legend(figure, panels=2)
    figure.savefig(folder / "evidence-any-rate.png")
    return folder / "evidence-any-rate.png"


if __name__ == "__main__":
    print(draw(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES))
