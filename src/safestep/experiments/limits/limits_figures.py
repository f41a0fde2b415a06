"""The figures of limits: the gap against the rate, of held-out runs, and against the target, of tuning runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from safestep.experiments.limits.limits_plan import HELD_OUT, TUNING
from safestep.experiments.limits.limits_statistics import STATISTICS
from safestep.experiments.limits.limits_summary import groups_of, with_gaps
from safestep.experiments.runner.experiment import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from safestep.plots import GapLine

OVER_RATES, OVER_TARGETS = "gap_over_rates", "gap_over_targets"


def limits_figures(rows: Sequence[Row]) -> dict[str, Figure]:
    """Return the figures that the rows of results.json give; held-out and tuning runs share none."""
    from safestep import plots

    gaps, figures = with_gaps(rows), {}
    held_out = [row for row in gaps if row["role"] == HELD_OUT]
    tuning = [
        {**row, "multiple": row["target"] / STATISTICS[row["statistic"]].chosen}
        for row in gaps
        if row["role"] == TUNING and row["bold"] and row["statistic"] is not None
    ]
    if held_out:
        panels = _panels(held_out, "rate", statistics.fmean)
        figures[OVER_RATES] = plots.gap_panels(panels, x="rate / first guess", title="Gap over rates, held out")
    if tuning:
        panels = _panels(tuning, "multiple", max)
        figures[OVER_TARGETS] = plots.gap_panels(panels, x="target / chosen", title="Worst gap over targets, tuning")
    return figures


def _panels(
    rows: Sequence[dict[str, Any]], place: str, told: Callable[[Sequence[float]], float]
) -> dict[str, list[GapLine]]:
    """Return a line for every statistic and policy in every task and optimizer, of what is told of each place."""
    from safestep import plots

    panels: dict[str, list[GapLine]] = {}
    for (task, optimizer, statistic, policy), line in groups_of(
        rows, "task", "optimizer", "statistic", "policy"
    ).items():
        gaps = {at: told([row["excess"] for row in group]) for (at,), group in groups_of(line, place).items()}
        points = sorted(gaps.items(), key=lambda point: math.inf if point[0] is None else point[0])
        panels.setdefault(f"{task} {optimizer}", []).append(plots.GapLine(statistic or "", policy, points))
    return panels
