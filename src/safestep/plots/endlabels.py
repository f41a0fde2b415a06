"""Labels at the ends of curves, spread so that none overlaps another, with a thin line to each end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text

from safestep.plots.style import LABEL_SIZE

_GAP = 14.0
"""Points between the end of the longest curve and the labels: room for the leading lines."""
_BETWEEN = 0.5
"""Points between two labels."""
_MOST = 0.6
"""The share of the axes that labels take at most, however narrow the axes."""
_LABELS = 24
"""So many labels are written at most."""
_LEADER = {"arrowstyle": "-", "lw": 0.6, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)}


@dataclass(frozen=True)
class End:
    """Where a curve ends, in data coordinates, and what to write there."""

    x: float
    y: float
    text: str
    colour: str


def spread(wanted: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Move intervals on a line as little as possible until none overlaps and all lie in [low, high].

    Minimises the sum of squared moves while the order of the centres is kept.

    Args:
        wanted: the centres asked for.
        heights: the length of each interval, in the same unit.
        low: where the first interval may begin.
        high: where the last may end. Intervals that are longer together than ``high - low`` stick out here.

    Returns:
        The centres, in the order of the input.

    Example:
        >>> spread([5.0, 5.0, 9.9], [2.0, 2.0, 2.0], 0.0, 10.0)
        [4.0, 6.0, 9.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    below = [0.0, *accumulate(heights[i] for i in order)]
    # With the heights below it taken off, each bottom may be anything that is not less than its predecessor's.
    bottoms = _rising([wanted[i] - heights[i] / 2 - offset for i, offset in zip(order, below, strict=False)])
    centres = [0.0] * len(wanted)
    for i, offset, bottom in zip(order, below, bottoms, strict=False):
        centres[i] = max(min(bottom, high - below[-1]), low) + offset + heights[i] / 2
    return centres


def _rising(values: Sequence[float]) -> list[float]:
    """Return the nearest sequence that never falls (isotonic regression by pooling adjacent violators)."""
    blocks: list[tuple[float, int]] = []  # mean, members
    for value in values:
        mean, members = value, 1
        while blocks and blocks[-1][0] > mean:
            before, more = blocks.pop()
            mean, members = (before * more + mean * members) / (more + members), more + members
        blocks.append((mean, members))
    return [mean for mean, members in blocks for _ in range(members)]


def label_ends(ax: Axes, ends: Sequence[End], last: float) -> list[Annotation]:
    """Write a label right of each curve's end, inside the axes, which are widened on the right for that.

    The labels are put in place whenever the figure is drawn, so they stay apart when it is resized or zoomed.

    Args:
        ax: axes whose limits, scales and place in the figure are set.
        ends: the ends of the curves; not finite or outside the frame is moved to its edge.
        last: x where the plotting area ends and the labels begin.

    Returns:
        The labels, in the order of ``ends``. Of more than 24 so many are written: the lowest, the highest, and others
        evenly between.
    """
    if not ends:
        return []
    if len(ends) > _LABELS:
        order = sorted(range(len(ends)), key=lambda i: (math.isnan(ends[i].y), ends[i].y))
        kept = {order[round(place * (len(ends) - 1) / (_LABELS - 1))] for place in range(_LABELS)}
        ends = [end for i, end in enumerate(ends) if i in kept]
    labels = [
        ax.annotate(
            end.text,
            (end.x, end.y),
            (1.0, 0.5),
            textcoords="axes fraction",
            color=end.colour,
            fontsize=LABEL_SIZE,
            va="center",
            ha="left",
            linespacing=1.0,
            annotation_clip=False,
            arrowprops={**_LEADER, "color": end.colour},
        )
        for end in ends
    ]
    ax.add_artist(_Placer(ax, labels, ends, last))
    return labels


class _Placer(Artist):
    """Draws nothing; puts the labels in place just before they are drawn."""

    def __init__(self, ax: Axes, labels: Sequence[Annotation], ends: Sequence[End], last: float) -> None:
        super().__init__()
        self._ax, self._labels, self._ends = ax, labels, ends
        self.set_zorder(-math.inf)
        self.set_in_layout(False)
        self._reserve(last)

    def _reserve(self, last: float) -> None:
        """Make room for the widest label right of ``last``."""
        ax, wide = self._ax, self._ax.get_window_extent().width
        gap = _GAP * ax.figure.dpi / 72 / wide
        share = min(gap + max(Text.get_window_extent(label).width for label in self._labels) / wide, _MOST)
        scale = ax.xaxis.get_transform()  # the room is a share of what is seen, on a logarithmic axis too
        left, end = (float(scale.transform(x)) for x in (ax.get_xlim()[0], last))
        ax.set_xlim(right=float(scale.inverted().transform(left + (end - left) / (1 - share))))
        self._x = 1 - share + gap
        # The grid ends where the curves do.
        ax.axvspan(last, ax.get_xlim()[1], facecolor=ax.get_facecolor(), edgecolor="none", zorder=0.6)

    def draw(self, renderer: Any) -> None:
        """Place the labels for the axes as they are now."""
        ax, frame = self._ax, self._ax.get_window_extent(renderer)
        sizes = self._heights(renderer)
        if sum(sizes) > frame.height:
            for label in self._labels:
                label.set_fontsize(float(label.get_fontsize()) * frame.height / sum(sizes) * 0.95)
            sizes = self._heights(renderer)
        low, high = ax.get_ylim()
        wanted = []
        for label, end in zip(self._labels, self._ends, strict=True):
            y = min(max(end.y, low), high) if math.isfinite(end.y) else high
            label.xy = (end.x, y)
            wanted.append(float(ax.transData.transform((end.x, y))[1]))
        for label, centre in zip(self._labels, spread(wanted, sizes, frame.y0, frame.y1), strict=True):
            label.set_position((self._x, (centre - frame.y0) / frame.height))

    def _heights(self, renderer: Any) -> list[float]:
        gap = _BETWEEN * self._ax.figure.dpi / 72
        return [Text.get_window_extent(label, renderer).height + gap for label in self._labels]
