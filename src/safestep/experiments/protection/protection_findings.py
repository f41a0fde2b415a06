"""What came out of protection, in sentences: what was too long, how far, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from safestep.experiments.protection.protection_summary import EXACT
from safestep.experiments.report.sentences import by, each, span
from safestep.experiments.runner.experiment import Row
from safestep.records.report import number


def protection_findings(summary: Sequence[Row]) -> list[str]:
    """Return what the summaries of the methods over all workloads come to."""
    methods = [row for row in summary if row["workload"] is None]
    groups = by(methods, "label")
    told = [
        f"Clearly too long, above 1.05 of the target: {each(groups, span('share_above_105', '.2%'))} of the steps.",
        f"The longest step, in units of the target: {each(groups, span('worst', '.2f'))}.",
    ]
    judged = [row for row in methods if row["label"] != EXACT and not math.isnan(number(row["accuracy_lost"]))]
    if judged:
        lost = each(by(judged, "label"), span("accuracy_lost", "+.2%"))
        told.append(f"Accuracy lost against the exact cap: {lost}; minus is better than exact, control is chance.")
    return told
