"""What the runs of every method come to: one row a method, and one for each workload."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, Final

from safestep.experiments.runner.experiment import Row
from safestep.records.report import number, plain

EXACT: Final = "exact"
"""The method that the others are compared with."""
_MOST_ABOVE = 0.005
"""The share of the steps that may be clearly above the target."""


def over_methods(rows: Sequence[Row]) -> list[Row]:
    """Return a row for each method over all its runs, then for each method on each workload.

    Shares are of all steps, whichever run they are of; ``runs_above`` counts the runs that by themselves have too large
    a share above 1.05 of the target. For ``accuracy_lost`` and ``loss_gained`` see `lost`.
    """
    methods, workloads = ([*dict.fromkeys(row[key] for row in rows)] for key in ("method", "workload"))
    every = [_summary(method, None, rows) for method in methods]
    each = [
        _summary(method, workload, [row for row in rows if row["workload"] == workload])
        for workload in workloads
        for method in methods
    ]
    summaries: list[Row] = plain([row for row in (*every, *each) if row["runs"]])
    return summaries


def _summary(method: str, workload: str | None, rows: Sequence[Row]) -> dict[str, Any]:
    chosen = [row for row in rows if row["method"] == method]
    audited, steps = _sum(chosen, "audited"), _sum(chosen, "steps")
    return {
        "label": method if workload is None else f"{method}: {workload}",
        "method": method,
        "workload": workload,
        "runs": len(chosen),
        "steps": steps,
        "audited": audited,
        "share_above_105": _share(_sum(chosen, "above_105"), audited),
        "runs_above": sum(number(row["share_above_105"]) > _MOST_ABOVE for row in chosen),
        "worst": max((w for row in chosen if not math.isnan(w := number(row["worst"]))), default=math.nan),
        "share_capped": _share(_sum(chosen, "capped"), steps),
        "share_skipped": _share(sum(number(row["share_skipped"]) * row["steps"] for row in chosen), steps),
        "share_needless": _share(_sum(chosen, "needless"), _sum(chosen, "within")),
        "inside": _sum(chosen, "inside"),
        "touched": _sum(chosen, "touched"),
        "accuracy_lost": lost(rows, method, "accuracy"),
        "loss_gained": lost(rows, method, "loss"),
        "diverged": sum(bool(row["diverged"]) for row in chosen),
    }


def lost(rows: Sequence[Row], method: str, judged: str) -> float:
    """Return how much worse runs of a method end than under the exact cap from the same beginnings.

    It is the mean over settings of the means over seeds, by the "accuracy" or "loss" that the workload is judged by;
    inf where a run diverged that did not under the exact cap, nan where there is nothing to compare.

    Example:
        >>> row = {"method": "exact", "judged": "accuracy", "seed": 7, "final_acc": 0.75, "workload": "digits-sgd",
        ...        "rate": 0.5, "disturbance": "none"}
        >>> lost([row, {**row, "method": "probe", "final_acc": 0.5}], "probe", "accuracy")
        0.25
    """
    column, sign = ("final_acc", -1.0) if judged == "accuracy" else ("final_loss", 1.0)
    ends = {(*_setting(row), row["seed"]): number(row[column]) for row in rows if row["method"] == EXACT}
    differences: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        exact = ends.get((*_setting(row), row["seed"]))
        if exact is not None and (row["method"], row["judged"]) == (method, judged):
            difference = sign * (number(row[column]) - exact)
            if not math.isfinite(difference):  # one of the two diverged, or both
                difference = math.inf if math.isfinite(exact) else 0.0
            differences.setdefault(_setting(row), []).append(difference)
    return statistics.fmean(map(statistics.fmean, differences.values())) if differences else math.nan


def _setting(row: Row) -> tuple[Any, ...]:
    return row["workload"], row["rate"], row["disturbance"]


def _sum(rows: Sequence[Row], column: str) -> int:
    return sum(int(row[column]) for row in rows)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
