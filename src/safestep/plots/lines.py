"""Curves on axes: one line per run, a band over seeds, labels at the ends, marks where a curve leaves the frame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from safestep.plots import style
from safestep.plots.curves import Curve
from safestep.plots.endlabels import End, label_ends
from safestep.plots.frame import count_axis, departures, drawable

_MARKERS = 7
"""About how many markers a curve carries."""


def draw_curves(
    ax: Axes, curves: Sequence[Curve], column: str, *, high: float = math.inf, at: Mapping[str, float] | None = None
) -> bool:
    """Draw one column of every curve.

    Args:
        ax: axes whose y scale and limits are set.
        curves: those without the column are left out.
        column: its name.
        high: where the frame ends; what lies above, or is not a number, leaves the frame and is marked. Without an
            end nothing leaves, and what is not a number is a gap.
        at: level lines, by the name to write at their end.

    Returns:
        Whether anything leaves the frame.
    """
    shown = [curve for curve in curves if column in curve.columns]
    last = count_axis(ax, [epoch for curve in shown for epoch in curve.epochs])
    ends, lines = [], style.lines(curves)
    for name, y in (at or {}).items():
        ax.plot([ax.get_xlim()[0], last], [y, y], color=style.INK, lw=0.9, ls=(0, (5, 4)), zorder=4)
        ends.append(End(last, y, name, style.INK))
    left = False
    for i, curve in enumerate(shown):
        band, colour, every = curve.columns[column], style.colour(curve.policy), max(1, len(curve.epochs) // _MARKERS)
        line = lines[curve.label]
        ax.plot(curve.epochs, drawable(band.median, high), label=curve.label, markevery=(i % every, every), **line)
        if curve.seeds > 1:
            low_edge, high_edge = drawable(band.low, high), drawable(band.high, high)
            ax.fill_between(curve.epochs, low_edge, high_edge, color=colour, alpha=0.15, lw=0, zorder=1)
        gone = [curve.epochs[j] for j in departures(band.median, high)] if math.isfinite(high) else []
        mark_departures(ax, gone, colour)
        left = left or bool(gone)
        text = f"{curve.label}\n(diverged)" if curve.diverged else curve.label
        seen = [j for j, value in enumerate(band.median) if math.isfinite(high) or not math.isnan(value)]
        if seen:
            ends.append(End(curve.epochs[seen[-1]], band.median[seen[-1]], text, colour))
    label_ends(ax, ends, last)
    return left


def mark_departures(ax: Axes, places: Sequence[float], colour: str, *, below: bool = False) -> None:
    """Put the mark of leaving the frame (`frame.LEAVES`) on its upper edge, or upside down on its lower."""
    y, mark = (0.025, "v") if below else (0.975, "^")
    across = ax.get_xaxis_transform()
    for x in places:
        ax.plot(x, y, mark, ms=8, color=colour, mec="white", mew=0.6, transform=across, clip_on=False, zorder=5)
