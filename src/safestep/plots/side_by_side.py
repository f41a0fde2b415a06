"""The traces of several schedules side by side: one small picture a label, all with the same frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from safestep.plots import style
from safestep.plots.contours import Value
from safestep.plots.endings import ending, title_of
from safestep.plots.panel import bare_axes, shorten, wrap
from safestep.plots.plane import Limits
from safestep.plots.scene import Place, scene_of
from safestep.plots.traces import draw_traces, explained

_COLUMNS, _HIGH, _SIZE = 2, 1.6, style.TEXT_SIZE - 1.0
"""Pictures in a row, inches of a picture's height, and the font size of what stands above it."""
_LEFT, _BETWEEN, _RIGHT = 0.58, 0.14, 0.1
"""Inches left of, between and right of the pictures."""
_MARKS = 0.75
"""Size of the marks, in units of those of a picture that stands alone."""
_TICKS, _NAME = 0.24, 0.22
"""Inches below a picture for its ticks, and below the last row for what they measure."""
_LINE = 1.25 / 72
"""Inches of a line of text, in font sizes."""


def traces_side_by_side(
    value: Value,
    traces: Mapping[str, Tensor],
    *,
    frame: Limits | None = None,
    minimum: Place | None = None,
    start: Place | None = None,
    ax: Sequence[Axes] | None = None,
) -> Figure:
    """Draw traces over contours as `trace_contours` does, each label in a picture of its own, with one frame for all.

    Args:
        value: f, see `trace_contours`.
        traces: by label, of shape ``(points, 2)`` or ``(runs, points, 2)``.
        frame: (lowest, highest) x₁ and (lowest, highest) x₂; chosen by the picture if not given.
        minimum: where f is lowest, if that is known; above each picture stands how far off the trace ends.
        start: where all traces start; without, the first point of each.
        ax: one axes a label, of one figure; they are drawn on where they are, and that figure gets no title.

    Returns:
        A figure outside pyplot: save it, or, where `%matplotlib inline` is on, show it as the last line of a cell. Its
        ``axes`` are the pictures. That of ``ax`` if they were given.

    Raises:
        TypeError: if the traces have no labels.
        ValueError: if a trace, a place, the frame or what f returns has another shape, or there are not as many axes
            as labels.

    Example:
        >>> import torch
        >>> bowl = lambda x: x[..., 0] ** 2 + 2 * x[..., 1] ** 2
        >>> traces = {"one": torch.tensor([[-5.0, -2.0], [-4.0, -1.2]]), "none": torch.tensor([[-5.0, -2.0]])}
        >>> [ax.get_title(loc="left") for ax in traces_side_by_side(bowl, traces, minimum=(0, 0)).axes]
        ['one: 4.18 off', 'none: 5.39 off']
    """
    scene = scene_of(traces, frame, minimum, start)
    axes = _own(len(scene.runs)) if ax is None else [bare_axes(one) for one in ax]
    if ax is not None and (len(axes) != len(scene.runs) or not axes):
        raise ValueError(f"{len(axes)} axes for {len(scene.runs)} labels: expected one for each, and a label at least")
    figure = cast(Figure, axes[0].figure)
    groups: list[list[str]] = [[label] for label in scene.runs] or [[]]
    drawn = [draw_traces(value, scene, group, one, size=_MARKS) for one, group in zip(axes, groups, strict=True)]
    names = []
    for label, stack in scene.runs.items():
        end = ending(stack[:, -1], scene.minimum) if stack.numel() else "no points"
        names.append(f"{shorten(label, _side() * 72 * 0.9, _SIZE)}: {end}")
    colours = list(scene.colours.values())
    if ax is None:
        _arrange(figure, axes, names, colours, title_of(scene.runs, scene.minimum, value), explained(drawn))
    else:
        _name(axes, [[name] for name in names], colours)
    return figure


def _own(count: int) -> list[Axes]:
    figure = Figure(figsize=(style.WIDTH, style.HEIGHT), dpi=style.DPI)
    FigureCanvasAgg(figure)
    return [bare_axes(figure.add_axes((0.1, 0.1, 0.8, 0.8), label=str(i))) for i in range(max(1, count))]


def _name(axes: Sequence[Axes], names: Sequence[Sequence[str]], colours: Sequence[str]) -> None:
    for one, lines, colour in zip(axes, names, colours, strict=False):
        one.set_title("\n".join(lines), loc="left", fontsize=_SIZE, color=colour, fontweight="bold", pad=4)


def _side() -> float:
    return (style.WIDTH - _LEFT - _RIGHT - (_COLUMNS - 1) * _BETWEEN) / _COLUMNS


def _arrange(
    figure: Figure, axes: Sequence[Axes], names: Sequence[str], colours: Sequence[str], title: str, subtitle: str
) -> None:
    """Put pictures and texts in place, and give the figure the height that they take."""
    room = 72 * style.WIDTH - 12
    head, sub = wrap(title, room, style.TITLE_SIZE, "bold"), wrap(subtitle, room, style.TEXT_SIZE)
    named = [wrap(name, 72 * _side(), _SIZE, "bold") for name in names]
    above = max(map(len, named), default=0) * _SIZE * _LINE + 0.08
    rows = -(-len(axes) // _COLUMNS)
    texts = 0.1 + len(head) * style.TITLE_SIZE * _LINE + len(sub) * style.TEXT_SIZE * _LINE + 0.08
    high = texts + rows * (above + _HIGH + _TICKS) + _NAME
    figure.set_size_inches(style.WIDTH, high)
    wide = _side() if len(axes) > 1 else style.WIDTH - _LEFT - _RIGHT
    for place, ax in enumerate(axes):
        row, column = divmod(place, _COLUMNS)
        top = texts + row * (above + _HIGH + _TICKS) + above
        left = _LEFT + column * (wide + _BETWEEN)
        ax.set_position((left / style.WIDTH, 1 - (top + _HIGH) / high, wide / style.WIDTH, _HIGH / high))
        ax.tick_params(labelsize=_SIZE)
        ax.yaxis.set_label_coords(-(_LEFT - 0.16) / wide, 0.5)
        if column:
            ax.set_ylabel("")
            ax.set_yticklabels([])
        if place + _COLUMNS < len(axes):
            ax.set_xlabel("")
            ax.set_xticklabels([])
    _name(axes, named, colours)
    x, y = 0.08 / style.WIDTH, 1 - 0.08 / high
    words: dict[str, Any] = {"va": "top", "linespacing": 1.16}
    figure.text(x, y, "\n".join(head), fontsize=style.TITLE_SIZE, weight="bold", color=style.INK, **words)
    below = y - (len(head) * style.TITLE_SIZE * _LINE + 0.03) / high
    figure.text(x, below, "\n".join(sub), fontsize=style.TEXT_SIZE, color=style.FAINT, **words)
