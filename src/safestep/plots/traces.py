"""The picture of descent on a plane: traces over the contours of f, with their starts, their ends and the minimum."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from safestep.plots import style
from safestep.plots.contours import Value, draw_contours
from safestep.plots.panel import bare_axes, legend, name_axes
from safestep.plots.plane import Limits
from safestep.plots.scene import MOST_RUNS, Place, Scene, scene_of
from safestep.plots.trace_artist import TraceArtist

TITLE = "Descent over the contours of f"


def trace_contours(
    value: Value,
    traces: Mapping[str, Tensor],
    *,
    frame: Limits | None = None,
    minimum: Place | None = None,
    start: Place | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw traces of a descent over the contours of the function f that they descend, darker where f is lower.

    A trace of one run is a line with dots; of several runs each is a faint line. The frame shows the starts, the
    minimum and the traces as far as they are tame (see `plane.plane_limits`); a triangle on its edge marks where a
    trace leaves it, a cross the last point before one that is not finite. Of more than 200 runs the first 200 are
    drawn.

    Args:
        value: f(x), a function of a float64 tensor of shape ``(..., 2)`` with values of shape ``(...)``; where it is
            not finite the picture is white.
        traces: by label, x₀, x₁, … of shape ``(points, 2)``, or of several runs of shape ``(runs, points, 2)``. The
            first point is the start.
        frame: (lowest, highest) x₁ and (lowest, highest) x₂; chosen by the picture if not given.
        minimum: where f is lowest, if that is known.
        start: where all traces start; without, the first point of each.
        ax: where to draw; new axes without.

    Raises:
        TypeError: if the traces have no labels.
        ValueError: if a trace, a place, the frame or what f returns has another shape.

    Example:
        >>> bowl = lambda x: x[..., 0] ** 2 + 2 * x[..., 1] ** 2
        >>> trace = torch.tensor([[-5.0 * 0.8**k, -2.0 * 0.6**k] for k in range(21)])
        >>> trace_contours(bowl, {"no noise": trace}, minimum=(0, 0)).get_legend_handles_labels()[1]
        ['no noise', 'start', 'minimum']
    """
    scene, ax = scene_of(traces, frame, minimum, start), bare_axes(ax)
    draw_picture(value, scene, ax)
    return ax


def draw_picture(value: Value, scene: Scene, ax: Axes) -> list[TraceArtist]:
    """Draw the whole picture, see `trace_contours`, and return what shows its traces."""
    for label, words in scene.names.items():
        ax.plot([], [], color=scene.colours[label], marker="o", ms=5, label=words)
    artists = draw_traces(value, scene, scene.runs, ax)
    name_axes(ax, TITLE, "x₁", "x₂")
    legend(ax)
    return artists


def draw_traces(value: Value, scene: Scene, labels: Iterable[str], ax: Axes, *, size: float = 1.0) -> list[TraceArtist]:
    """Draw contours, the places of a scene and the traces of some of its labels.

    Args:
        value: f.
        scene: what to draw.
        labels: of the traces to draw.
        ax: where.
        size: of the marks, in units of those of a picture that stands alone.

    Returns:
        One artist for each label that has a point.
    """
    ax.set(xlim=scene.limits[0], ylim=scene.limits[1])
    whole = draw_contours(ax, value, scene.limits)
    shown = {label: scene.runs[label] for label in labels if scene.runs[label].numel()}
    artists = [
        TraceArtist(ax, runs[:MOST_RUNS], scene.limits, scene.colours[label], size) for label, runs in shown.items()
    ]
    ax.set(xlim=scene.limits[0], ylim=scene.limits[1])
    _draw_places(ax, scene, shown, size)
    for mark, meaning in ((">", style.LEAVES), ("x", "last finite point")):
        if any((there.edge == "nowhere") == (mark == "x") for artist in artists for there in artist.gone):
            ax.plot([], [], mark, color=style.FAINT, label=meaning)
    if not whole:
        ax.fill_between([], [], facecolor="white", edgecolor=style.FAINT, label="f is not finite")
    ax.grid(visible=False)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5 if size == 1.0 else 4, steps=[1, 2, 5, 10]))
    return artists


def _draw_places(ax: Axes, scene: Scene, shown: Mapping[str, Tensor], size: float) -> None:
    """Mark where the traces start, each place once, and the minimum."""
    firsts = torch.cat([torch.empty(0, 2, dtype=torch.float64), *(runs[:MOST_RUNS, 0] for runs in shown.values())])
    starts = [scene.start] if scene.start else [place for place in firsts.unique(dim=0).tolist() if _finite(place)]
    mark: dict[str, Any] = {"color": style.INK, "ls": ""}
    if starts:
        fill = "white" if any(runs.shape[1] > 1 for runs in shown.values()) else "none"  # an end may lie below
        few = len(starts) < 9
        ax.plot(*zip(*starts, strict=True), "o", mfc=fill, mew=1.3 if few else 0.7, ms=size * (6 if few else 3),
                zorder=6.5, label="start", **mark)  # fmt: skip
    if scene.minimum:
        ax.plot(*scene.minimum, "+", mew=1.6, ms=10 * size, zorder=5, label="minimum", **mark)


def _finite(place: list[float]) -> bool:
    return all(map(math.isfinite, place))
