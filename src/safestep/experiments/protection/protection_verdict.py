"""What the runs of every method come to: one row a method, and one for each workload."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from safestep.experiments.protection.protection_ends import Comparison, comparisons
from safestep.experiments.runner.experiment import Row
from safestep.records.report import number, plain

MOST_ABOVE = 0.005
"""The share of the steps that may be clearly above the target."""


def verdicts(rows: Sequence[Row]) -> list[Row]:
    """Return a row for each method over all its runs, then for each method on each workload.

    Args:
        rows: of results.json.

    Returns:
        Rows with ``label``, ``method``, ``workload`` (None for all), how many ``runs``, ``steps``, ``audited`` and
        ``diverged``; over all steps ``share_above_105``, ``worst``, ``share_capped``, ``share_skipped``,
        ``share_needless``, ``inside`` and ``touched``; ``runs_above``, the runs that by themselves have too large a
        share above; and means over settings of what is lost against the exact cap, ``accuracy_lost`` and
        ``loss_gained``.
    """
    methods, workloads = ([*dict.fromkeys(row[key] for row in rows)] for key in ("method", "workload"))
    every = [_verdict(method, None, rows) for method in methods]
    each = [_verdict(method, workload, rows) for workload in workloads for method in methods]
    found: list[Row] = plain([row for row in (*every, *each) if row["runs"]])
    return found


def _verdict(method: str, workload: str | None, rows: Sequence[Row]) -> dict[str, Any]:
    chosen = [row for row in rows if row["method"] == method and workload in {None, row["workload"]}]
    compared = comparisons([row for row in rows if workload in {None, row["workload"]}], method)
    audited, taken = _sum(chosen, "audited"), _sum(chosen, "steps")
    return {
        "label": method if workload is None else f"{method}: {workload}",
        "method": method,
        "workload": workload,
        "runs": len(chosen),
        "steps": taken,
        "audited": audited,
        "share_above_105": _share(_sum(chosen, "above_105"), audited),
        "runs_above": sum(number(row["share_above_105"]) > MOST_ABOVE for row in chosen),
        "worst": max((w for row in chosen if not math.isnan(w := number(row["worst"]))), default=math.nan),
        "share_capped": _share(_sum(chosen, "capped"), taken),
        "share_skipped": _share(sum(number(row["share_skipped"]) * row["steps"] for row in chosen), taken),
        "share_needless": _share(_sum(chosen, "needless"), _sum(chosen, "within")),
        "inside": _sum(chosen, "inside"),
        "touched": _sum(chosen, "touched"),
        "accuracy_lost": _mean(compared, "accuracy"),
        "loss_gained": _mean(compared, "loss"),
        "diverged": sum(bool(row["diverged"]) for row in chosen),
    }


def _mean(compared: Sequence[Comparison], judged: str) -> float:
    values = [one.worse for one in compared if one.judged == judged]
    return statistics.fmean(values) if values else math.nan


def _sum(rows: Sequence[Row], column: str) -> int:
    return sum(int(row[column]) for row in rows)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
