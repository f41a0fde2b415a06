"""What came out of the drift studies, in sentences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from safestep.experiments.report.sentences import by, count, each, span
from safestep.experiments.report.tables import cell
from safestep.experiments.runner.experiment import Row
from safestep.records.report import number


def map_findings(rows: Sequence[Row]) -> list[str]:
    """Return which share of the cells diverged, and which would by theory; medians over the starts."""
    laws = by(rows, "law")
    return [
        f"Of the cells diverged: {each(laws, _median('share_diverged', '.1%'))}.",
        f"Without a throttle theory says {_median('share_beyond', '.1%')(rows)}.",
        f"The loss was ever above its start: {each(laws, _median('share_risen', '.1%'))}.",
    ]


def throttle_findings(rows: Sequence[Row]) -> list[str]:
    """Return who diverged after the drift, how high the loss went, and how soon it was gone."""
    drifted = [row for row in rows if row["run"] in {"B", "C"}]
    laws = by(drifted, "law", {"none": "no throttle", "secant": "secant law", "curvature": "curvature on the batch"})
    if not laws:
        return []
    return [
        f"Diverged after the drift: {each(laws, count('diverged'))}.",
        f"Highest loss, of that when the drift came: {each(laws, span('peak_over_first', '#.3g'))}.",
        f"Steps to a loss of 1e-4: {each(laws, _steps)}.",
    ]


def optimizers_findings(summary: Sequence[Row]) -> list[str]:
    """Return how many runs were lost under every law, and what control costs where nothing is wrong."""
    told = []
    for rate, cases in by(summary, "rate").items():
        told.append(f"Diverged at {rate} rates: {each(by(cases, 'law'), count('lost', of='seeds'))}.")
    well = [row for row in summary if row["rate"] == "quiet" and math.isfinite(number(row["slowdown"]))]
    if costs := by([row for row in well if row["law"] != "none"], "law"):
        took = each(costs, span("slowdown", ".2f"))
        told.append(f"Steps to the target at quiet rates, of those without control: {took}.")
    return told


def _median(key: str, form: str) -> Callable[[Sequence[Row]], str]:
    return lambda rows: cell(statistics.median(number(row[key]) for row in rows), form)


def _steps(rows: Sequence[Row]) -> str:
    median = statistics.median(math.inf if row["steps_to_1e-4"] is None else row["steps_to_1e-4"] for row in rows)
    return "never" if math.isinf(median) else f"{median:g}"
