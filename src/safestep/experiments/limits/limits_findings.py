"""What came out of limits, in sentences: how many runs end as well as the best tuned one, and how many are lost."""

from __future__ import annotations

from collections.abc import Sequence

from safestep.experiments.limits.limits_plan import HELD_OUT, PLAIN
from safestep.experiments.report.sentences import by, count, each
from safestep.experiments.runner.experiment import Row
from safestep.records.report import number


def limits_findings(summary: Sequence[Row]) -> list[str]:
    """Return what the held-out summaries come to, by limit, over every task; none without held-out runs."""
    groups = by([row for row in summary if row["role"] == HELD_OUT], "statistic", {None: PLAIN})
    if not groups:
        return []
    return [
        f"Held-out runs as good as the best tuned one, at its rate, a higher one or none: {each(groups, _share)}.",
        f"Lost: {each(groups, count('lost', of='runs'))}.",
    ]


def _share(rows: Sequence[Row]) -> str:
    return f"{sum(number(row['within']) * row['runs'] for row in rows) / sum(row['runs'] for row in rows):.0%}"
