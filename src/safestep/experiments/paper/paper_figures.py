"""The figures of the studies: what one step does to loss or accuracy against its r, a small panel a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from safestep.records.report import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOW, _HIGH = 0.1, 100.0
"""The frame of a loss over that before."""


class Line(NamedTuple):
    """What steps of one direction do: the label gives the colour, and random directions are dotted."""

    label: str
    x: Sequence[float]
    y: Sequence[Any]
    dotted: bool = False


def course_panels(panels: Mapping[str, Sequence[Line]], *, x: str, y: str, title: str, log: bool) -> Figure:
    """Draw lines, thin, so that seeds and directions can be told apart; what leaves the frame is cut off."""
    from safestep.plots import style
    from safestep.plots.frame import log_axis
    from safestep.plots.panel import grid_of_panels, name_figure, name_small, shared_legend

    figure = grid_of_panels(max(1, len(panels)), x=x, y=y)
    lines = [line for drawn in panels.values() for line in drawn]
    colours = style.palette(line.label for line in lines)
    for ax, (name, drawn) in zip(figure.axes, panels.items(), strict=False):
        log_axis(ax, 0.01, 100.0, along="x")
        if log:
            log_axis(ax, _LOW, _HIGH)
        else:
            ax.set_ylim(0.0, 1.2)
        if x == "r":
            ax.axvline(1.0, color=style.INK, lw=0.9, ls=(0, (5, 4)), zorder=4, label="r = 1")
        for line in drawn:
            heights = [min(number(one), 10 * _HIGH) for one in line.y]
            look: dict[str, Any] = {"color": colours[line.label], "alpha": max(0.25, min(1.0, 8 / len(drawn)))}
            ax.plot(line.x, heights, ":" if line.dotted else "-", lw=1.1, zorder=3, **look)
        name_small(ax, name)
    for label, colour in colours.items():
        figure.axes[0].plot([], [], color=colour, lw=2.5, label=label)
    if any(line.dotted for line in lines):
        figure.axes[0].plot([], [], ":", color=style.FAINT, label="random direction")
    name_figure(figure, title)
    shared_legend(figure)
    return figure
