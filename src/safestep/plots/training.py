"""Pictures of training runs over epochs: loss, accuracy, effective learning rate, largest step ratio."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

from safestep.plots import headlines as say
from safestep.plots import style
from safestep.plots.curves import Curve
from safestep.plots.frame import LEAVES, log_axis, log_frame, usable
from safestep.plots.lines import draw_curves
from safestep.plots.panel import bare_axes, headline, level, name_axes, panel

Picture = Callable[..., Axes]
"""A function of curves and ``ax=`` that draws one picture."""


def training_loss(curves: Sequence[Curve], *, ax: Axes | None = None) -> Axes:
    """Draw the mean training loss of each epoch on a logarithmic axis.

    The frame fits the runs that did not diverge; a curve that leaves it is marked on the upper edge.

    Args:
        curves: the runs, see `safestep.plots.curves_of`; columns used: ``train_loss``.
        ax: where to draw; new axes without.

    Returns:
        The axes.
    """
    ax = bare_axes(ax)
    healthy = [curve for curve in curves if not curve.diverged]
    seen = usable(v for curve in healthy for v in _values(curve, "train_loss"))
    values = usable(v for curve in curves for v in _values(curve, "train_loss"))
    # Without a healthy run the smaller half of what was seen sets the scale, not the peak of an explosion.
    ceiling = 3 * max(seen) if seen else 3 * sorted(values)[len(values) // 2] if values else math.inf
    low, high = log_frame(values, ceiling=ceiling)
    log_axis(ax, low, high)
    left = draw_curves(ax, curves, "train_loss", high=high)
    note = f" {LEAVES} beyond the frame." if left else ""
    name_axes(ax, "epoch", "training loss")
    subtitle = f"Mean loss of each epoch, log scale: lower is better.{note}{say.over_seeds(curves)}"
    headline(ax, say.loss_title(curves), subtitle)
    return ax


def test_accuracy(curves: Sequence[Curve], *, ax: Axes | None = None) -> Axes:  # noqa: PT028
    """Draw the share of the test set that is classified correctly after each epoch, on an axis from 0 to 100 %.

    Args:
        curves: the runs; columns used: ``test_acc``, a fraction.
        ax: where to draw; new axes without.

    Returns:
        The axes.
    """
    ax = bare_axes(ax)
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_locator(MultipleLocator(0.2))
    ax.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    draw_curves(ax, curves, "test_acc")
    name_axes(ax, "epoch", "test accuracy")
    subtitle = f"Share of unseen examples named correctly after each epoch.{say.over_seeds(curves)}"
    headline(ax, say.accuracy_title(curves), subtitle)
    return ax


test_accuracy.__test__ = False  # type: ignore[attr-defined]  # a picture, not a test, whatever pytest thinks of its name


def effective_lr(curves: Sequence[Curve], *, ax: Axes | None = None) -> Axes:
    """Draw the learning rate times the scale that the policy chose, as the mean of each epoch, on a logarithmic axis.

    Args:
        curves: the runs; columns used: ``mean_lr``.
        ax: where to draw; new axes without.

    Returns:
        The axes.
    """
    ax = bare_axes(ax)
    low, high = log_frame(v for curve in curves for v in _values(curve, "mean_lr"))
    log_axis(ax, low, high)
    draw_curves(ax, curves, "mean_lr")
    name_axes(ax, "epoch", "effective learning rate")
    subtitle = f"Learning rate times the scale of the step, mean of each epoch, log scale.{say.over_seeds(curves)}"
    headline(ax, say.lr_title(curves), subtitle)
    return ax


def largest_ratio(curves: Sequence[Curve], *, target: float = 1.0, ax: Axes | None = None) -> Axes:
    """Draw the largest step ratio r taken in each epoch, on a logarithmic axis, with a line at the target.

    Args:
        curves: the runs; columns used: ``max_r``.
        target: the r that the policies aim at; the frame ends at a thousand times it.
        ax: where to draw; new axes without.

    Returns:
        The axes.
    """
    ax = bare_axes(ax)
    goal = target if 0 < target < math.inf else 1.0
    low, high = log_frame((v for c in curves for v in _values(c, "max_r")), ceiling=1e3 * goal, keep=[goal])
    log_axis(ax, low, high)
    left = draw_curves(ax, curves, "max_r", high=high, at={"target": goal} if goal == target else {})
    note = f" {LEAVES} beyond the frame." if left else ""
    name_axes(ax, "epoch", "largest step ratio r")
    subtitle = f"Longest step of each epoch in units of its radius, log scale.{note}{say.over_seeds(curves)}"
    headline(ax, say.ratio_title(curves, target), subtitle)
    return ax


def overview(curves: Sequence[Curve], *, target: float = 1.0, title: str = "") -> Figure:
    """Draw the four pictures side by side.

    Args:
        curves: the runs.
        target: the r that the policies aim at.
        title: what stands above them.

    Returns:
        A figure outside pyplot: save it, or, where `%matplotlib inline` is on, show it as the last line of a cell.
    """
    wide, high, above = 2.15 * style.WIDTH, 2.1 * style.HEIGHT, 0.4 if title else 0.0
    figure = Figure(figsize=(wide, high + above), dpi=150)
    FigureCanvasAgg(figure)
    share = high / (high + above) / 2
    draws: list[Picture] = [training_loss, test_accuracy, effective_lr, partial(largest_ratio, target=target)]
    for row in (0, 1):
        cells = [(column / 2, share * (1 - row), 0.5, share) for column in (0, 1)]
        level([draws[2 * row + column](curves, ax=panel(figure, cell)) for column, cell in enumerate(cells)])
    if title:
        figure.text(0.08 / wide, 1 - 0.1 / (high + above), title, fontsize=15, weight="bold", color=style.INK, va="top")
    return figure


def _values(curve: Curve, column: str) -> list[float]:
    band = curve.columns.get(column)
    return [*band.low, *band.median, *band.high] if band else []
