"""The picture of many learning rates: what runs end with, by method, beside the best that tuning found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from safestep.plots import style
from safestep.plots.frame import log_axis
from safestep.plots.lines import draw_curve
from safestep.plots.panel import bare_axes, legend, name_axes

_ROOM = 1.6
"""Beside the lowest and the highest rate, as a factor."""


def ends_over_rates(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    levels: Mapping[str, float],
    high: float,
    y: str,
    ours: Mapping[str, str],
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw what runs of each method end with against the learning rate, and tuned runs as levels.

    Args:
        lines: by the name of a method: rate, positive, and what the run ends with there; less is better. What is above
            ``high``, infinite or nan leaves the frame, with a triangle.
        levels: by name what tuned runs end with, the first dashed, others dotted.
        high: where the frame ends above.
        y: what a run ends with, and in which unit.
        ours: the methods to see first, drawn broad and on top, and their colours.
        title: above.
        ax: where to draw; new axes without.

    Example:
        >>> lines = {"plain": [(0.1, 2.5), (1.0, 2.2), (10.0, 9.9)], "capped": [(1.0, 2.2), (10.0, 2.2)]}
        >>> ax = ends_over_rates(lines, levels={"tuned": 2.2}, high=3.0, y="loss", ours={"capped": "#0072B2"})
        >>> float(ax.get_ylim()[1])
        3.0
    """
    ax = bare_axes(ax)
    rates = [rate for points in lines.values() for rate, _ in points] or [1.0]
    ends = [end for points in lines.values() for _, end in points if end <= high]
    lowest = min([*levels.values(), *ends], default=high - 1.0)
    low = lowest - 0.08 * (high - lowest)
    log_axis(ax, min(rates) / _ROOM, max(rates) * _ROOM, along="x")
    ax.set_ylim(low, high)
    outside = high + 0.3 * (high - low)  # near, so that a line which leaves is seen to rise
    free = (colour for colour in (style.FAINT, *style.SERIES, *style.SERIES) if colour not in ours.values())
    colours = {**dict(zip((name for name in lines if name not in ours), free, strict=False)), **ours}
    for name in sorted(lines, key=lambda name: name in ours):
        x, ends = [rate for rate, _ in lines[name]], [min(outside, end) for _, end in lines[name]]  # nan, too
        broad, color = 1.0 + (name in ours), colours[name]
        draw_curve(ax, x, ends, label=name, color=color, high=high, marker="o", lw=1.4 * broad, zorder=2 + broad)
    for place, (name, end) in enumerate(levels.items()):
        ax.axhline(end, color=style.INK, lw=1.2, ls=(0, (1, 1.5) if place else (5, 4)), zorder=5, label=name)
    name_axes(ax, title, "learning rate, in units of the first guess", y)
    legend(ax)
    return ax
