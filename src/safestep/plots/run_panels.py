"""More pictures of one guarded run: the scale of every step, its length, what became of it, and all in one figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from safestep.plots import style
from safestep.plots.frame import count_axis, log_axis, log_frame
from safestep.plots.lines import draw_curve
from safestep.plots.panel import bare_axes, legend, name_axes, name_figure, single_figure
from safestep.plots.steps import AFTER, BEFORE, effective_lrs, step_ratios
from safestep.records.reading import Status
from safestep.records.report import StepReport

_PARTS = 60
"""So many bars at most; each stands for as many records."""
_STATUS_COLOURS = {
    Status.INSIDE: "#b8c4ce",
    Status.CAPPED: style.COLOURS["cap"],
    Status.PINNED: style.COLOURS["pin"],
    Status.THROTTLED: "#56B4E9",
    Status.WATCHED: "#b8c4ce",
    Status.UNBOUNDED: "#e3e8ec",
    Status.STILL: "#e3e8ec",
    Status.HELD: "#E69F00",
    Status.SKIPPED: "#CC79A7",
    Status.UNMEASURED: "#7a4a21",
    Status.NONFINITE: "#a13d00",
    Status.UNDONE: style.COLOURS["fixed"],
}
"""A colour each; what a run cannot have together may share one."""


def scales(history: Iterable[StepReport], *, ax: Axes | None = None) -> Axes:
    """Draw the factor that every step was multiplied by; under a policy that only watches, also what it stands for.

    Args:
        history: ``guard.history``, ``safestep.logs.read(path)``, or any reports.
        ax: where to draw; new axes without.

    Example:
        >>> scales([]).get_ylabel()
        'scale s'
    """
    reports, ax = list(history), bare_axes(ax)
    steps, taken, meant = [r.step for r in reports], [r.scale for r in reports], [r.would_scale for r in reports]
    low, high = log_frame([*taken, *meant], keep=[1.0])
    log_axis(ax, low, high)
    count_axis(ax, steps)
    if meant != taken:
        draw_curve(ax, steps, meant, label="would be", low=low, **BEFORE)
    draw_curve(ax, steps, taken, label="taken", low=low, **AFTER)
    name_axes(ax, "Scale of the steps", "step", "scale s")
    legend(ax)
    return ax


def step_lengths(history: Iterable[StepReport], *, ax: Axes | None = None) -> Axes:
    """Draw the length of every step over all parameters, as the optimizer proposed it and as it was taken.

    Args:
        history: ``guard.history``, ``safestep.logs.read(path)``, or any reports.
        ax: where to draw; new axes without.

    Example:
        >>> step_lengths([]).get_ylabel()
        'step length ‖p‖'
    """
    reports, ax = list(history), bare_axes(ax)
    steps = [r.step for r in reports]
    proposed, taken = [r.step_length for r in reports], [r.applied_length for r in reports]
    low, high = log_frame([*proposed, *taken])
    log_axis(ax, low, high)
    count_axis(ax, steps)
    if proposed != taken:
        draw_curve(ax, steps, proposed, label="proposed", low=low, high=high, **BEFORE)
    draw_curve(ax, steps, taken, label="taken", low=low, high=high, **AFTER)
    name_axes(ax, "Step lengths", "step", "step length ‖p‖")
    legend(ax)
    return ax


def status_shares(history: Iterable[StepReport], *, ax: Axes | None = None) -> Axes:
    """Draw what became of the steps: shares of every status, over stretches of as many records.

    Args:
        history: ``guard.history``, ``safestep.logs.read(path)``, or any reports.
        ax: where to draw; new axes without.

    Example:
        >>> status_shares([]).get_ylabel()
        'share of the steps'
    """
    reports, ax = list(history), bare_axes(ax)
    size = max(1, -(-len(reports) // _PARTS))
    parts = [reports[begin : begin + size] for begin in range(0, len(reports), size)]
    edges = [part[0].step for part in parts]
    ends = [*edges[1:], *(r.step + 1 for r in reports[-1:])]
    widths = [end - begin for begin, end in zip(edges, ends, strict=True)]
    below = [0.0] * len(parts)
    for status in (status for status in _STATUS_COLOURS if any(r.status is status for r in reports)):
        heights = [sum(r.status is status for r in part) / len(part) for part in parts]
        ax.bar(edges, heights, widths, below, align="edge", color=_STATUS_COLOURS[status], label=str(status))
        below = [low + height for low, height in zip(below, heights, strict=True)]
    count_axis(ax, [r.step for r in reports])
    ax.set_ylim(0.0, 1.0)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    every = f": {reports[0].status}" if len({r.status for r in reports}) == 1 else ""
    name_axes(ax, f"What became of the steps{every}", "step", "share of the steps")
    legend(ax)
    return ax


def run_overview(history: Iterable[StepReport], *, title: str = "") -> Figure:
    """Draw r, the statuses, the learning rates and the lengths of a run's steps in one figure.

    Args:
        history: ``guard.history``, ``safestep.logs.read(path)``, or any reports.
        title: what stands above them.

    Returns:
        A figure outside pyplot: save it, or, where `%matplotlib inline` is on, show it as the last line of a cell.
    """
    reports: Sequence[StepReport] = list(history)
    figure = single_figure(2.15 * style.WIDTH, 2.0 * style.HEIGHT, dpi=150)
    pictures: tuple[Any, ...] = (step_ratios, status_shares, effective_lrs, step_lengths)
    for draw, ax in zip(pictures, figure.subplots(2, 2).flat, strict=True):
        draw(reports, ax=ax)
    name_figure(figure, title)
    return figure
