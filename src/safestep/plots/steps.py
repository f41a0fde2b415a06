"""Pictures of a user's own guard: step ratios and effective learning rates, step by step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes

from safestep.plots import style
from safestep.plots.endlabels import End, label_ends
from safestep.plots.frame import LEAVES, count_axis, departures, drawable, log_axis, log_frame, plain_number, usable
from safestep.plots.lines import mark_departures
from safestep.plots.panel import bare_axes, headline, name_axes
from safestep.records.reading import Status
from safestep.records.report import StepReport

_BLUE, _ORANGE = style.COLOURS["cap"], style.COLOURS["fixed"]
_LOST = (Status.UNDONE, Status.SKIPPED, Status.NONFINITE)


def step_ratios(history: Iterable[StepReport], *, ax: Axes | None = None) -> Axes:
    """Draw r of every step as it was proposed and as it was taken, with the target.

    Args:
        history: ``guard.history``, or any reports.
        ax: where to draw; new axes without.

    Returns:
        The axes.

    Example:
        >>> step_ratios([]).get_title(loc="left")
        'No steps yet'
    """
    reports, x, ax = _open(history, ax)
    guesses = [report.predicted_ratio for report in reports]
    goals = usable(report.target for report in reports)
    measured = [report for report in reports if not report.predicted]
    proposed, at = [report.ratio for report in measured], [report.step for report in measured]
    taken = [report.applied_ratio for report in measured]
    ceiling = 1e3 * max(goals, default=1.0)
    low, high = log_frame([*proposed, *taken, *guesses], ceiling=ceiling, keep=goals)
    log_axis(ax, low, high)
    last = count_axis(ax, x)
    left = departures(proposed, high)
    if any(report.predicted for report in reports):
        ax.plot(x, guesses, color=style.FAINT, lw=0, marker="o", ms=2, label="predicted, not measured")
    ends = _pair(ax, at, {"proposed": proposed, "taken": taken}, high)
    if goals:
        targets = [report.target for report in reports]
        ax.plot(x, targets, color=style.INK, lw=1.0, ls=(0, (6, 3)), label="target")
        ends += _end(x, targets, "target", style.INK)
    mark_departures(ax, [at[i] for i in left], _ORANGE)
    label_ends(ax, ends, last)
    name_axes(ax, "step", "step ratio r")
    note = f" {LEAVES} beyond the frame or not finite." if left else ""
    headline(ax, _ratio_title(reports), f"Length of each step in units of its radius, log scale.{note}")
    return ax


def effective_lrs(history: Iterable[StepReport], *, ax: Axes | None = None) -> Axes:
    """Draw the learning rate of every parameter group, as the optimizer had it and as it took effect.

    Args:
        history: ``guard.history``, or any reports.
        ax: where to draw; new axes without.

    Returns:
        The axes.

    Example:
        >>> effective_lrs([]).get_title(loc="left")
        'No steps yet'
    """
    reports, x, ax = _open(history, ax)
    groups = max((len(report.lrs) for report in reports), default=0)
    low, high = log_frame(v for report in reports for v in (*report.lrs, *report.effective_lrs))
    log_axis(ax, low, high)
    last, ends = count_axis(ax, x), []
    for group in range(groups):
        number = f" {group}" if groups > 1 else ""
        given = [_at(report.lrs, group) for report in reports]
        effective = [_at(report.effective_lrs, group) for report in reports]
        ends += _pair(ax, x, {f"given{number}": given, f"effective{number}": effective})
    label_ends(ax, ends, last)
    name_axes(ax, "step", "learning rate")
    subtitle = "Learning rate of each step, and the same times the scale of the step, log scale."
    headline(ax, _lr_title(reports), subtitle)
    return ax


def _open(history: Iterable[StepReport], ax: Axes | None) -> tuple[list[StepReport], list[int], Axes]:
    """Return the reports, the numbers of their steps, and the axes to draw on."""
    reports = list(history)
    return reports, [report.step for report in reports], bare_axes(ax)


def _pair(ax: Axes, x: Sequence[int], lines: Mapping[str, Sequence[float]], high: float = math.inf) -> list[End]:
    """Draw what was asked for, broad, and what became of it on top; where they are the same, the latter alone.

    Args:
        ax: axes whose y scale and limits are set.
        x: the steps.
        lines: the two by name, in this order.
        high: where the frame ends, if what lies beyond it or is not finite should be drawn there.

    Returns:
        The ends of the lines.
    """
    (_, before), (last, after) = lines.items()
    looks = {name: (_BLUE, 1.5) if name == last else (_ORANGE, 2.6) for name in lines}
    ends = []
    for name, (colour, width) in looks.items():
        if name == last or before != after:
            values = drawable(lines[name], high) if high < math.inf else lines[name]
            ax.plot(x, values, color=colour, lw=width, label=name, marker=_marker(x), ms=4)
            ends += _end(x, lines[name], name, colour)
    return ends


def _at(rates: Sequence[float], group: int) -> float:
    return rates[group] if group < len(rates) else math.nan


def _marker(x: Sequence[int]) -> str:
    """Return a marker for so few steps that a line alone would hardly be seen."""
    return "o" if len(x) <= 12 else ""


def _end(x: Sequence[int], values: Sequence[float], name: str, colour: str) -> list[End]:
    seen = [(step, value) for step, value in zip(x, values, strict=True) if not math.isnan(value)]
    return [End(*seen[-1], name, colour)] if seen else []


def _ratio_title(reports: Sequence[StepReport]) -> str:
    """Count what became of the steps."""
    if not reports:
        return "No steps yet"
    steps = f"{len(reports)} steps" if len(reports) != 1 else "1 step"
    top = max(usable(report.ratio for report in reports), default=0.0)
    lost = sum(report.status in _LOST for report in reports)
    rest = f"; not finite: {lost}" if lost else ""
    if all(report.scale == 1.0 for report in reports):
        beyond = sum(report.ratio > 1 for report in reports)
        return f"Beyond the radius: {beyond} of {steps}; largest r: {plain_number(top)}{rest}"
    shortened = sum(0 < report.scale < 1 for report in reports)
    return f"Shortened: {shortened} of {steps}; largest proposed r: {plain_number(top)}{rest}"


def _lr_title(reports: Sequence[StepReport]) -> str:
    """Say between which values the first group's effective rate moved."""
    if not reports:
        return "No steps yet"
    rates = usable(report.effective_lr for report in reports)
    if not rates:
        return "No step took effect"
    group = " of group 0" if len(reports[0].lrs) > 1 else ""
    low, high = f"{min(rates):.3g}", f"{max(rates):.3g}"
    if low == high:
        return f"The effective learning rate{group} stays at {low}"
    return f"The effective learning rate{group} runs from {low} to {high}"
