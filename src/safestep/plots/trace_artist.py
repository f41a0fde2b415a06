"""What shows the traces of one label on a plane, as far as a step: lines, dots, ends and marks of departure."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from torch import Tensor

from safestep.plots.plane import EDGES, Departure, Limits, departures, drawable

_MOST_MARKS = 5
"""So many departures of a run are marked at most."""
_FEW_POINTS = 100
"""Up to so many points the dots of a trace have their full size."""


class TraceArtist:
    """The traces of one label: a line with dots for one run, faint lines for several.

    Args:
        ax: axes whose limits are set.
        runs: shape ``(runs, points, 2)``, nan where not finite; at least one point.
        limits: of the frame.
        colour: of all of it.
        size: of the marks, in units of those of a picture that stands alone.

    Attributes:
        gone: where the runs leave the frame; of a run that comes and goes, the first places.
    """

    def __init__(self, ax: Axes, runs: Tensor, limits: Limits, colour: str, size: float = 1.0) -> None:
        count, points, _ = runs.shape
        few = points <= _FEW_POINTS
        self.gone = [there for run in runs for there in departures(run, limits)[:_MOST_MARKS]]
        self._runs = runs
        self._lines = [drawable(run, limits) for run in runs]
        look = {"lw": 1.4 if few else 0.7, "alpha": 0.8} if count == 1 else {"lw": 0.7, "alpha": min(0.5, 5 / count)}
        self._line = LineCollection([], colors=colour, zorder=3, capstyle="round", **look)
        ax.add_collection(self._line, autolim=False)
        dots: dict[str, Any] = {"color": colour, "ls": "", "marker": "o"}
        (self._dots,) = ax.plot([], [], ms=3.6 if few else 1.6, mew=0.0, zorder=3.5, **dots)
        end = 7.5 if count == 1 else 5.0 if count <= 12 else 3.2
        (self._ends,) = ax.plot([], [], mec="white", mew=0.7, ms=end * size, zorder=6, **dots)
        self._marks = [(there.step, _mark(ax, there, colour, 8.0 if count == 1 else 4.5)) for there in self.gone]
        self.until(points - 1)

    def until(self, step: int) -> None:
        """Show the traces up to a step, whose points become the ends."""
        self._line.set_segments([line[: step + 1].numpy() for line in self._lines])
        if len(self._runs) == 1:
            self._dots.set_data(*self._runs[0, : step + 1].T.numpy())
        self._ends.set_data(*self._runs[:, : step + 1][:, -1].T.numpy())
        for at, mark in self._marks:
            mark.set_visible(at < step)


def _mark(ax: Axes, there: Departure, colour: str, size: float) -> Line2D:
    lost = there.edge == "nowhere"
    edge: dict[str, Any] = {"mec": colour, "mew": 1.8} if lost else {"mec": "white", "mew": 0.6}
    shape = "x" if lost else EDGES[there.edge]
    (mark,) = ax.plot(there.x, there.y, shape, ms=size, color=colour, clip_on=False, zorder=7, **edge)
    return mark
