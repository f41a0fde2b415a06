"""A curve in a frame: its band, and a mark on the edge of the frame wherever it leaves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes

from safestep.plots.style import FAINT, INK, LEAVES

_FAR = 1e3
"""What lies outside is drawn at most so many frames outside: a canvas cannot draw 1e308."""


def draw_curve(
    ax: Axes,
    x: Sequence[float],
    y: Sequence[float],
    *,
    label: str,
    color: str,
    low: float = -math.inf,
    high: float = math.inf,
    band: tuple[Sequence[float], Sequence[float]] | None = None,
    **look: Any,
) -> None:
    """Draw a curve, and mark where it leaves the frame.

    Args:
        ax: axes whose y scale and limits are set.
        x: rising.
        y: what lies above ``high`` or is not a number leaves at the top; without an end there, nan is a gap.
        label: for the legend.
        color: of the curve, its band and its marks.
        low: where the frame ends below, if a curve may leave it there.
        high: where it ends above, if a curve may leave it there.
        band: low and high edge.
        look: more options of ``Axes.plot``; a curve of few points has a dot for each unless they say otherwise.
    """
    look = {"marker": "o" if len(x) <= 3 else "", "ms": 4, **look}
    ax.plot(x, near_frame(y, low, high), label=label, color=color, **look)
    if band is not None:
        lower, upper = (near_frame(edge, low, high) for edge in band)
        ax.fill_between(x, lower, upper, color=color, alpha=0.16, lw=0, zorder=1)
    if math.isfinite(high):
        mark_edge(ax, _begins(x, [not value <= high for value in y]), color)
    mark_edge(ax, _begins(x, [value < low for value in y]), color, mark="v")


def mark_edge(ax: Axes, places: Sequence[float], color: str, *, mark: str = "^", meaning: str = LEAVES) -> None:
    """Put marks on the upper edge of the frame, or on the lower for the mark "v", and explain them in the legend."""
    for x in places:
        ax.plot(x, 0.025 if mark == "v" else 0.975, mark, ms=8, color=color, mec="white", mew=0.6,
                transform=ax.get_xaxis_transform(), clip_on=False, zorder=5)  # fmt: skip
    if places:
        ax.plot([], [], mark, color=FAINT, label=meaning)


def draw_level(ax: Axes, y: float, label: str) -> None:
    """Draw a dashed line across the axes."""
    ax.axhline(y, color=INK, lw=0.9, ls=(0, (5, 4)), zorder=4, label=label)


def explain_band(ax: Axes, words: str) -> None:
    """Say in the legend what the bands are."""
    ax.fill_between([], [], color=FAINT, alpha=0.25, lw=0, label=words)


def near_frame(values: Sequence[float], low: float, high: float) -> list[float]:
    """Return values with those far outside the frame put just outside."""
    extent = high - low if math.isfinite(low) else high
    top, bottom = high + _FAR * extent, low - _FAR * extent
    return [top if math.isnan(value) and top < math.inf else min(max(value, bottom), top) for value in values]


def _begins(x: Sequence[float], outside: Sequence[bool]) -> list[float]:
    """Return where each stretch outside begins."""
    return [place for place, (before, now) in zip(x, pairwise([False, *outside]), strict=True) if now and not before]
