"""Pictures of a user's own guard: step ratios and effective learning rates, step by step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes

from safestep.plots import style
from safestep.plots.frame import count_axis, log_axis, log_frame, usable
from safestep.plots.lines import draw_curve
from safestep.plots.panel import bare_axes, legend, name_axes
from safestep.records.report import StepReport

BEFORE: dict[str, Any] = {"color": style.COLOURS["fixed"], "lw": 2.6}
AFTER: dict[str, Any] = {"color": style.COLOURS["cap"], "lw": 1.5}
"""What was asked for lies broad below what became of it."""


def step_ratios(history: Iterable[StepReport], *, ax: Axes | None = None) -> Axes:
    """Draw r of every step as it was proposed and as it was taken, with the target.

    Where both are the same throughout, the steps that were taken are drawn alone.

    Args:
        history: ``guard.history``, or any reports.
        ax: where to draw; new axes without.

    Example:
        >>> step_ratios([]).get_ylabel()
        'step ratio r'
    """
    reports, ax = list(history), bare_axes(ax)
    measured = [report for report in reports if not report.predicted]
    steps = [report.step for report in measured]
    proposed, taken = [report.ratio for report in measured], [report.applied_ratio for report in measured]
    guesses = [report.predicted_ratio for report in reports]
    targets = [report.target for report in reports]
    goals = usable(targets)
    low, high = log_frame([*proposed, *taken, *guesses], ceiling=1e3 * max(goals, default=1.0), keep=goals)
    log_axis(ax, low, high)
    count_axis(ax, [report.step for report in reports])
    if len(measured) < len(reports):
        x = [report.step for report in reports]
        ax.plot(x, guesses, color=style.FAINT, lw=0, marker="o", ms=2, label="predicted")
    if proposed != taken:
        draw_curve(ax, steps, proposed, label="proposed", high=high, **BEFORE)
    draw_curve(ax, steps, taken, label="taken", high=high, **AFTER)
    if goals:
        x = [report.step for report in reports]
        ax.plot(x, targets, color=style.INK, lw=1.0, ls=(0, (6, 3)), label="target")
    name_axes(ax, "Step ratios", "step", "step ratio r")
    legend(ax)
    return ax


def effective_lrs(history: Iterable[StepReport], *, ax: Axes | None = None) -> Axes:
    """Draw the learning rate of every parameter group, as the optimizer had it and as it took effect.

    Args:
        history: ``guard.history``, or any reports.
        ax: where to draw; new axes without.

    Example:
        >>> effective_lrs([]).get_ylabel()
        'learning rate'
    """
    reports, ax = list(history), bare_axes(ax)
    steps = [report.step for report in reports]
    log_axis(ax, *log_frame(v for report in reports for v in (*report.lrs, *report.effective_lrs)))
    count_axis(ax, steps)
    groups = max((len(report.lrs) for report in reports), default=0)
    for group in range(groups):
        number = f" {group}" if groups > 1 else ""
        before, after = _column([r.lrs for r in reports], group), _column([r.effective_lrs for r in reports], group)
        if before != after:
            draw_curve(ax, steps, before, label=f"given{number}", **BEFORE)
        draw_curve(ax, steps, after, label=f"effective{number}", **AFTER)
    name_axes(ax, "Learning rates", "step", "learning rate")
    legend(ax)
    return ax


def _column(rates: Sequence[Sequence[float]], group: int) -> list[float]:
    return [row[group] if group < len(row) else math.nan for row in rates]
