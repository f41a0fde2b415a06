"""The picture of descent on a plane: traces over the contours of f, with their starts, their ends and the minimum."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

from safestep.plots import style
from safestep.plots.contours import Value, draw_contours
from safestep.plots.endings import title_of
from safestep.plots.legend import colour_key
from safestep.plots.panel import bare_axes, headline, name_axes
from safestep.plots.plane import Limits, within
from safestep.plots.scene import MOST_RUNS, Place, Scene, scene_of
from safestep.plots.trace_artist import TraceArtist

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
    artists = [TraceArtist(ax, stack[:MOST_RUNS], limits, scene.colours[label], size) for label, stack in shown.items()]
    ax.set(xlim=limits[0], ylim=limits[1])
    starts = [scene.start] if scene.start else _starts(list(shown.values()))
    mark: dict[str, Any] = {"color": style.INK, "ls": ""}
    ax.plot(
        [x for x, _ in starts],
        [y for _, y in starts],
        "o",
        mfc="white" if any(stack.shape[1] > 1 for stack in shown.values()) else "none",  # an end may lie below
        mew=1.3 if len(starts) < 9 else 0.7,
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
    edges = {there.edge for drawn in pictures for artist in drawn.artists for there in artist.gone}
    if outside:
        mark = "Triangle: leaves the frame; " if edges - {"nowhere"} else ""
        words.append(f"{mark}{outside} of {len(points)} points are outside{'' if mark else ' the frame'}.")
    if not bool(known.all()):
        mark = "× last finite point; " if "nowhere" in edges else ""
        words.append(f"{mark}{int((~known).sum())} of {len(points)} points are not finite.")
    if not all(drawn.whole for drawn in pictures):
        words.append("White: f is not finite.")
    return " ".join(filter(None, words))


def _amount(shown: Sequence[Tensor]) -> str:
    if not shown:
        return ""
    steps, most = max(runs.shape[1] for runs in shown) - 1, max(len(runs) for runs in shown)
    several = f"; medians of {most} runs{f', {MOST_RUNS} drawn' if most > MOST_RUNS else ''}" if most > 1 else ""
    return f"{steps} step{'' if steps == 1 else 's'}{several}."


def _starts(stacks: Sequence[Tensor]) -> list[tuple[float, float]]:
    """Return where the drawn runs start, each place once."""
    firsts = torch.cat([torch.empty(0, 2, dtype=torch.float64), *(stack[:MOST_RUNS, 0] for stack in stacks)])
    return [(x, y) for x, y in firsts.unique(dim=0).tolist() if math.isfinite(x + y)]


def _tick(extent: float) -> Any:
    return lambda value, _: f"{0.0 if abs(value) < 1e-9 * extent else value:.10g}".replace("-", "−")
