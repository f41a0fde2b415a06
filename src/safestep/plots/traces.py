"""The picture of descent on a plane: traces over the contours of f, with their starts, their ends and the minimum."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

from safestep.plots import style
from safestep.plots.contours import Value, draw_contours
from safestep.plots.endings import title_of
from safestep.plots.key import colour_key
from safestep.plots.panel import bare_axes, headline, name_axes
from safestep.plots.plane import EDGES, Departure, Limits, departures, drawable, within
from safestep.plots.scene import Place, Scene, scene_of

_MOST_RUNS = 200
"""So many runs of a label are drawn at most."""
_MOST_MARKS = 5
"""So many departures of a run are marked at most."""
_START, _END, _MINIMUM = (words.replace(" ", "\N{NO-BREAK SPACE}") for words in ("○ start", "● end", "+ minimum"))


def trace_contours(
    value: Value,
    traces: Mapping[str, Tensor],
    *,
    frame: Limits | None = None,
    minimum: Place | None = None,
    start: Place | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw traces of a descent over the contours of the function f that they descend.

    A trace of one run is a line with dots; of several runs each is a faint line. The frame shows the starts, the
    minimum and the traces as far as they are tame (see `plane.plane_limits`); a triangle on its edge marks where a
    trace leaves it, a cross the last point before one that is not finite. Of more than 200 runs the first 200 are
    drawn; what title and subtitle say is said of all.

    Args:
        value: f(x), a function of a float64 tensor of shape ``(..., 2)`` with values of shape ``(...)``; where it is
            not finite the picture is white.
        traces: by label, x₀, x₁, … of shape ``(points, 2)``, or of several runs of shape ``(runs, points, 2)``. The
            first point is the start.
        frame: (lowest, highest) x₁ and (lowest, highest) x₂; chosen by the picture if not given.
        minimum: where f is lowest, if that is known; the title tells how far from it each trace ends.
        start: where all traces start; without, the first point of each.
        ax: where to draw; new axes without.

    Returns:
        The axes.

    Raises:
        TypeError: if the traces have no labels.
        ValueError: if a trace, a place, the frame or what f returns has another shape.

    Example:
        >>> bowl = lambda x: x[..., 0] ** 2 + 2 * x[..., 1] ** 2
        >>> trace = torch.tensor([[-5.0 * 0.8**k, -2.0 * 0.6**k] for k in range(21)])
        >>> trace_contours(bowl, {"no noise": trace}, minimum=(0, 0)).get_title(loc="left").split()[-4:]
        ['0.0576', 'from', 'the', 'minimum']
    """
    return traces_with_headline(value, scene_of(traces, frame, minimum, start), bare_axes(ax)).ax


def traces_with_headline(value: Value, scene: Scene, ax: Axes) -> Drawn:
    """Draw the whole picture, see `trace_contours`, and return what it is made of."""
    drawn = draw_traces(value, scene, scene.runs, ax)
    headline(ax, title_of(scene.runs, scene.minimum, value), explained([drawn]), key=colour_key(ax, scene.colours))
    return drawn


@dataclass(frozen=True)
class Drawn:
    """Traces on axes.

    Attributes:
        ax: the axes.
        scene: what is drawn, and where.
        shown: the runs that have a point, by label.
        whole: whether f is finite in the whole frame.
        artists: one for each label shown.
    """

    ax: Axes
    scene: Scene
    shown: Mapping[str, Tensor]
    whole: bool
    artists: Sequence[TraceArtist]


class TraceArtist:
    """The line, dots, end and departures of one label, up to a step."""

    def __init__(self, ax: Axes, runs: Tensor, limits: Limits, colour: str, size: float = 1.0) -> None:
        kept = runs[:_MOST_RUNS]
        gone = [departures(run, limits) for run in kept]
        self.gone = [there for every in gone for there in every]
        self._ax, self._runs, self._colour = ax, kept, colour
        self._lines = [drawable(run, limits) for run in kept]
        look = _look(len(kept), int(within(kept, limits).sum()), size)
        self._line = LineCollection([], colors=colour, linewidths=look["lw"], alpha=look["alpha"], zorder=3)
        self._line.set_capstyle("round")
        ax.add_collection(self._line, autolim=False)
        dots: dict[str, Any] = {"color": colour, "ls": "", "marker": "o", "mew": 0.0}
        (self._dots,) = ax.plot([], [], ms=look["dot"], alpha=look["dot_alpha"], zorder=3.5, **dots)
        (self._ends,) = ax.plot([], [], **{**dots, "mec": "white", "mew": 0.7}, ms=look["end"], zorder=6)
        # Of a run that comes and goes, the first departures tell enough.
        marked = [there for every in gone for there in every[:_MOST_MARKS]]
        self._marks = [(there.step, self._mark(there, small=len(kept) > 1)) for there in marked]
        self.until(kept.shape[1] - 1)

    def until(self, step: int) -> None:
        """Show the traces up to a step, whose points become the ends."""
        self._line.set_segments([line[: step + 1].numpy() for line in self._lines])
        points = self._runs[:, : step + 1].reshape(-1, 2) if len(self._runs) == 1 else self._runs[:, :0].reshape(-1, 2)
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


def draw_traces(value: Value, scene: Scene, labels: Iterable[str], ax: Axes, *, size: float = 1.0) -> Drawn:
    """Draw contours, the places of a scene and the traces of some of its labels; no headline and no key.

    Args:
        value: f.
        scene: what to draw.
        labels: of the traces to draw.
        ax: where.
        size: of the marks, in units of those of a picture that stands alone.
    """
    limits = scene.limits
    ax.set(xlim=limits[0], ylim=limits[1])
    whole = draw_contours(ax, value, limits)
    shown = {label: scene.runs[label] for label in labels if scene.runs[label].numel()}
    artists = [TraceArtist(ax, stack, limits, scene.colours[label], size) for label, stack in shown.items()]
    ax.set(xlim=limits[0], ylim=limits[1])
    starts = [scene.start] if scene.start else _starts(list(shown.values()))
    mark: dict[str, Any] = {"color": style.INK, "ls": ""}
    ax.plot(
        [x for x, _ in starts],
        [y for _, y in starts],
        "o",
        mfc="white" if any(stack.shape[1] > 1 for stack in shown.values()) else "none",  # an end may lie below
        mew=1.3,
        ms=size * (6 if len(starts) < 9 else 3),
        zorder=6.5,
        **mark,
    )
    if scene.minimum:
        ax.plot(scene.minimum[0], scene.minimum[1], "+", mew=1.6, ms=10 * size, zorder=5, **mark)
    name_axes(ax, "x₁", "x₂")
    ax.grid(visible=False)
    for axis, (low, high) in zip((ax.xaxis, ax.yaxis), limits, strict=True):
        axis.set_major_locator(MaxNLocator(5 if size == 1.0 else 4, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(_tick(high - low)))
    return Drawn(ax, scene, shown, whole, artists)


def explained(pictures: Sequence[Drawn]) -> str:
    """Return what the subtitle says: what is drawn, and how much is not to be seen."""
    shown = [runs for drawn in pictures for runs in drawn.shown.values()]
    points = torch.cat([torch.empty(0, 2), *(runs.reshape(-1, 2) for runs in shown)])
    known = points.isfinite().all(-1)
    outside = int((known & ~within(points, pictures[0].scene.limits)).sum())
    marks = [*([_START, _END] if bool(known.any()) else []), *([_MINIMUM] if pictures[0].scene.minimum else [])]
    words = ["Contours of f, darker is lower.", f"{', '.join(marks)}." if marks else "", _amount(shown)]
    if outside:
        words.append(f"Triangle: leaves the frame; {outside} of {len(points)} points are outside.")
    if not bool(known.all()):
        lost = any(there.edge == "nowhere" for drawn in pictures for artist in drawn.artists for there in artist.gone)
        words.append(f"{'× last finite point; ' if lost else ''}{int((~known).sum())} of {len(points)} are not finite.")
    if not all(drawn.whole for drawn in pictures):
        words.append("White: f is not finite.")
    return " ".join(filter(None, words))


def _amount(shown: Sequence[Tensor]) -> str:
    if not shown:
        return ""
    steps, most = max(runs.shape[1] for runs in shown) - 1, max(len(runs) for runs in shown)
    several = f"; medians of {most} runs{f', {_MOST_RUNS} drawn' if most > _MOST_RUNS else ''}" if most > 1 else ""
    return f"{steps} step{'' if steps == 1 else 's'}{several}."


def _look(runs: int, points: int, size: float) -> dict[str, float]:
    """Return widths, sizes and opacities: the more there is in the frame, the thinner."""
    if runs > 1:
        alpha = min(0.5, max(0.06, 5 / runs))
        return {"lw": 0.7, "alpha": alpha, "dot": 0.0, "dot_alpha": 0.0, "end": size * (5.0 if runs <= 12 else 3.2)}
    crowd = min(1.0, max(0.0, math.log10(max(points, 1) / 30) / math.log10(1000 / 30)))  # 0 to 30 points, 1 from 1000
    return {"lw": 1.5 - 1.0 * crowd, "alpha": 0.85, "dot": 3.6 - 2.2 * crowd, "dot_alpha": 1.0, "end": 7.5 * size}


def _starts(stacks: Sequence[Tensor]) -> list[tuple[float, float]]:
    """Return where the drawn runs start, each place once."""
    firsts = torch.cat([torch.empty(0, 2, dtype=torch.float64), *(stack[:_MOST_RUNS, 0] for stack in stacks)])
    return [(x, y) for x, y in firsts.unique(dim=0).tolist() if math.isfinite(x + y)]


def _tick(extent: float) -> Any:
    return lambda value, _: f"{0.0 if abs(value) < 1e-9 * extent else value:.10g}".replace("-", "−")
