"""What shows the traces of one label on a plane, as far as a step: lines, dots, ends and marks of departure."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from torch import Tensor

from safestep.plots.plane import EDGES, Departure, Limits, departures, drawable, within

_MOST_MARKS = 5
"""So many departures of a run are marked at most."""
_FEW_POINTS, _MANY_POINTS = 30, 1000
"""Up to so many points dots have their full size, and from so many on their least."""


class TraceArtist:
    """The traces of one label: a line with dots for one run, faint lines for several.

    Args:
        ax: axes whose limits are set.
        runs: shape ``(runs, points, 2)``, nan where not finite; at least one point.
        limits: of the frame.
        colour: of all of it.
        size: of the marks, in units of those of a picture that stands alone.

    Attributes:
        gone: where the runs leave the frame.
    """

    def __init__(self, ax: Axes, runs: Tensor, limits: Limits, colour: str, size: float = 1.0) -> None:
        gone = [departures(run, limits) for run in runs]
        self.gone = [there for every in gone for there in every]
        self._ax, self._runs, self._colour = ax, runs, colour
        self._lines = [drawable(run, limits) for run in runs]
        look = _look(len(runs), int(within(runs, limits).sum()), size)
        self._line = LineCollection([], colors=colour, linewidths=look["lw"], alpha=look["alpha"], zorder=3)
        self._line.set_capstyle("round")
        ax.add_collection(self._line, autolim=False)
        dots: dict[str, Any] = {"color": colour, "ls": "", "marker": "o", "mew": 0.0}
        (self._dots,) = ax.plot([], [], ms=look["dot"], alpha=look["dot_alpha"], zorder=3.5, **dots)
        (self._ends,) = ax.plot([], [], **{**dots, "mec": "white", "mew": 0.7}, ms=look["end"], zorder=6)
        # Of a run that comes and goes, the first departures tell enough.
        marked = [there for every in gone for there in every[:_MOST_MARKS]]
        self._marks = [(there.step, self._mark(there, small=len(runs) > 1)) for there in marked]
        self.until(runs.shape[1] - 1)

    def until(self, step: int) -> None:
        """Show the traces up to a step, whose points become the ends."""
        self._line.set_segments([line[: step + 1].numpy() for line in self._lines])
        points = self._runs[0, : step + 1 if len(self._runs) == 1 else 0]
        self._dots.set_data(points[:, 0].numpy(), points[:, 1].numpy())
        ends = self._runs[:, : step + 1][:, -1:].reshape(-1, 2)
        self._ends.set_data(ends[:, 0].numpy(), ends[:, 1].numpy())
        for at, mark in self._marks:
            mark.set_visible(at < step)

    def _mark(self, there: Departure, *, small: bool) -> Line2D:
        lost = there.edge == "nowhere"
        (mark,) = self._ax.plot(
            there.x,
            there.y,
            "x" if lost else EDGES[there.edge],
            ms=4.5 if small else 8.0 - lost,
            color=self._colour,
            mec=self._colour if lost else "white",
            mew=1.8 if lost else 0.6,
            clip_on=False,
            zorder=7,
        )
        return mark


def _look(runs: int, points: int, size: float) -> dict[str, float]:
    """Return widths, sizes and opacities: the more there is in the frame, the thinner."""
    if runs > 1:
        alpha = min(0.5, max(0.06, 5 / runs))
        return {"lw": 0.7, "alpha": alpha, "dot": 0.0, "dot_alpha": 0.0, "end": size * (5.0 if runs <= 12 else 3.2)}
    crowd = math.log(max(points, 1) / _FEW_POINTS) / math.log(_MANY_POINTS / _FEW_POINTS)
    crowd = min(1.0, max(0.0, crowd))
    return {
        "lw": 1.5 - 0.7 * crowd,
        "alpha": 0.85 - 0.35 * crowd,
        "dot": 3.6 - 2.2 * crowd,
        "dot_alpha": 1.0,
        "end": 7.5 * size,
    }
