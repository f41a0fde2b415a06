"""Pictures of training runs over epochs: loss, accuracy, effective learning rate, largest step ratio."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

from safestep.plots import style
from safestep.plots.curves import Curve
from safestep.plots.frame import count_axis, log_axis, log_frame, usable
from safestep.plots.lines import draw_curve, draw_level, explain_band
from safestep.plots.panel import bare_axes, legend, name_axes, name_figure, shared_legend, single_figure

_MARKERS = 7
"""About how many markers a curve carries."""


def training_loss(curves: Sequence[Curve], *, ax: Axes | None = None) -> Axes:
    """Draw the mean training loss of each epoch on a logarithmic axis.

    The frame fits the runs that did not diverge; a curve that leaves it is marked on the upper edge.

    Args:
        curves: the runs, see `safestep.plots.curves_of`; columns used: ``train_loss``.
        ax: where to draw; new axes without.
    """
    ax = bare_axes(ax)
    seen = usable(_values([curve for curve in curves if not curve.diverged], "train_loss"))
    values = usable(_values(curves, "train_loss"))
    # Without a healthy run the smaller half of what was seen sets the scale, not the peak of an explosion.
    ceiling = 3 * max(seen) if seen else 3 * sorted(values)[len(values) // 2] if values else math.inf
    low, high = log_frame(values, ceiling=ceiling)
    log_axis(ax, low, high)
    _draw(ax, curves, "train_loss", high)
    name_axes(ax, "Training loss", "epoch", "mean loss")
    legend(ax)
    return ax


def test_accuracy(curves: Sequence[Curve], *, ax: Axes | None = None) -> Axes:  # noqa: PT028
    """Draw the share of the test set that is classified correctly after each epoch, on an axis from 0 to 100 %.

    Args:
        curves: the runs; columns used: ``test_acc``, a fraction.
        ax: where to draw; new axes without.
    """
    ax = bare_axes(ax)
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_locator(MultipleLocator(0.2))
    ax.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    _draw(ax, curves, "test_acc")
    name_axes(ax, "Test accuracy", "epoch", "share named correctly")
    legend(ax)
    return ax


test_accuracy.__test__ = False  # type: ignore[attr-defined]  # a picture, not a test, whatever pytest thinks of its name


def effective_lr(curves: Sequence[Curve], *, ax: Axes | None = None) -> Axes:
    """Draw the learning rate times the scale that the policy chose, as the mean of each epoch, on a logarithmic axis.

    Args:
        curves: the runs; columns used: ``mean_lr``.
        ax: where to draw; new axes without.
    """
    ax = bare_axes(ax)
    log_axis(ax, *log_frame(_values(curves, "mean_lr")))
    _draw(ax, curves, "mean_lr")
    name_axes(ax, "Effective learning rate", "epoch", "mean of rate × scale")
    legend(ax)
    return ax


def largest_ratio(curves: Sequence[Curve], *, target: float = 1.0, ax: Axes | None = None) -> Axes:
    """Draw the largest step ratio r taken in each epoch, on a logarithmic axis, with a line at the target.

    Args:
        curves: the runs; columns used: ``max_r``.
        target: the r that the policies aim at; the frame ends at a thousand times it.
        ax: where to draw; new axes without.
    """
    ax = bare_axes(ax)
    goal = target if 0 < target < math.inf else 1.0
    low, high = log_frame(_values(curves, "max_r"), ceiling=1e3 * goal, keep=[goal])
    log_axis(ax, low, high)
    _draw(ax, curves, "max_r", high)
    if goal == target:
        draw_level(ax, goal, "target")
    name_axes(ax, "Largest step ratio", "epoch", "largest r of the epoch")
    legend(ax)
    return ax


def overview(curves: Sequence[Curve], *, target: float = 1.0, title: str = "") -> Figure:
    """Draw the four pictures in one figure, with one legend.

    Args:
        curves: the runs.
        target: the r that the policies aim at.
        title: what stands above them.

    Returns:
        A figure outside pyplot: save it, or, where `%matplotlib inline` is on, show it as the last line of a cell.
    """
    figure = single_figure(2.15 * style.WIDTH, 2.0 * style.HEIGHT, dpi=150)
    (loss, accuracy), (rate, ratio) = figure.subplots(2, 2)
    training_loss(curves, ax=loss)
    test_accuracy(curves, ax=accuracy)
    effective_lr(curves, ax=rate)
    largest_ratio(curves, target=target, ax=ratio)
    name_figure(figure, title)
    shared_legend(figure, panels=2)
    return figure


def _draw(ax: Axes, curves: Sequence[Curve], column: str, high: float = math.inf) -> None:
    """Draw one column of every curve that has it, with a band over seeds."""
    shown = [curve for curve in curves if column in curve.columns]
    count_axis(ax, [epoch for curve in shown for epoch in curve.epochs])
    looks = style.lines(curves)
    for place, curve in enumerate(shown):
        values, every = curve.columns[column], max(1, len(curve.epochs) // _MARKERS)
        draw_curve(
            ax,
            curve.epochs,
            values.median,
            label=f"{curve.label} (diverged)" if curve.diverged else curve.label,
            high=high,
            band=(values.low, values.high) if curve.seeds > 1 else None,
            markevery=(place % every, every),
            **looks[curve.label],
        )
    seeds = max((curve.seeds for curve in shown), default=1)
    if seeds > 1:
        explain_band(ax, f"quartiles of {seeds} seeds")


def _values(curves: Sequence[Curve], column: str) -> list[float]:
    bands = [curve.columns[column] for curve in curves if column in curve.columns]
    return [value for band in bands for values in (band.low, band.median, band.high) for value in values]
