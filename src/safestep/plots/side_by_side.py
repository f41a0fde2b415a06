"""The traces of several schedules side by side: one small picture a label, all with the same frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from safestep.plots.contours import Value
from safestep.plots.panel import bare_axes, figure_of, grid_of_panels, name_figure, name_small, shared_legend
from safestep.plots.plane import Limits
from safestep.plots.scene import Place, scene_of
from safestep.plots.traces import TITLE, draw_traces

_MARKS = 0.75
"""Size of the marks, in units of those of a picture that stands alone."""


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
        minimum: where f is lowest, if that is known.
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
        ['one', 'none']
    """
    scene = scene_of(traces, frame, minimum, start)
    labels = list(scene.runs)
    if ax is not None and (len(ax) != len(labels) or not labels):
        raise ValueError(f"{len(ax)} axes for {len(labels)} labels: expected one for each, and a label at least")
    figure = grid_of_panels(max(1, len(labels)), x="x₁", y="x₂") if ax is None else figure_of(ax[0])
    for one, label in zip_longest(ax or figure.axes, labels):
        draw_traces(value, scene, [label] if labels else [], bare_axes(one), size=_MARKS)
        if labels:
            name_small(one, scene.names[label], scene.colours[label])
    if ax is None:
        name_figure(figure, TITLE)
        shared_legend(figure)
    return figure
