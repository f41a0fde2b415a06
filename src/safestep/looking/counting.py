"""What the records of a run come to: how many steps were shortened or lost, in all and stretch by stretch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from safestep.logs.every import is_lost
from safestep.records.reading import Status
from safestep.records.report import StepReport

_STRETCHES = 10


def shortened(report: StepReport) -> bool:
    """Return whether a step was taken, and shorter than the optimizer made it."""
    return report.status in {Status.CAPPED, Status.THROTTLED, Status.PINNED} and report.scale < 1.0


def share(reports: Sequence[StepReport]) -> float:
    """Return the share of the steps that were shortened, in [0, 1]; nan without steps."""
    return sum(map(shortened, reports)) / len(reports) if reports else math.nan


def farthest(reports: Iterable[StepReport]) -> StepReport | None:
    """Return the report with the largest r that is known, an infinite one among them; None where none is."""
    known = [report for report in reports if not math.isnan(report.known_ratio)]
    return max(known, key=lambda report: report.known_ratio, default=None)


def median(values: Iterable[float]) -> float:
    """Return the median of the numbers among some values; nan where there are none."""
    there = [value for value in values if not math.isnan(value)]
    return statistics.median(there) if there else math.nan


def stretches(reports: Sequence[StepReport]) -> list[dict[str, Any]]:
    """Return one row for each of at most ten stretches of as many records, oldest first.

    A stretch with lost steps is flagged ``diverged``, which the page colours.
    """
    size = max(1, -(-len(reports) // _STRETCHES))
    rows = []
    for begin in range(0, len(reports), size):
        part = reports[begin : begin + size]
        far, lost = farthest(part), sum(map(is_lost, part))
        rows.append(
            {
                "label": f"{part[0].step}–{part[-1].step}" if len(part) > 1 else str(part[0].step),
                "r": median(report.known_ratio for report in part),
                "largest": far.known_ratio if far else math.nan,
                "taken": max(
                    (report.applied_ratio for report in part if report.ratio == report.ratio), default=math.nan
                ),
                "share": share(part),
                "scale": median(report.scale for report in part),
                "lr": median(report.effective_lr for report in part),
                "length": median(report.applied_length for report in part),
                "lost": lost,
                "diverged": lost > 0,
            }
        )
    return rows


def statuses(reports: Sequence[StepReport]) -> list[dict[str, Any]]:
    """Return one row for each status that occurs, the most frequent first."""
    found: dict[Status, list[StepReport]] = {}
    for report in reports:
        found.setdefault(report.status, []).append(report)
    return [
        {"label": str(status), "steps": len(some), "share": len(some) / len(reports), "first": some[0].step,
         "last": some[-1].step}
        for status, some in sorted(found.items(), key=lambda item: -len(item[1]))
    ]  # fmt: skip
