"""The figures of the studies: what one step does to loss or accuracy against its r, and what changes over training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from safestep.records.report import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOW, _HIGH = 0.1, 100.0
"""The frame of a loss over that before."""
_FAR = 4.0
"""Up to where zeros are shown, in bounds."""


class Line(NamedTuple):
    """What steps of one direction do: the label gives the colour, and random directions are dotted."""

    label: str
    x: Sequence[float]
    y: Sequence[Any]
    dotted: bool = False


def course_panels(
    panels: Mapping[str, Sequence[Line]], *, x: str, y: str, title: str, log: bool, dotted: str
) -> Figure:
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
        figure.axes[0].plot([], [], ":", color=style.FAINT, label=dotted)
    name_figure(figure, title)
    shared_legend(figure)
    return figure


class Track(NamedTuple):
    """What changes over training: at every x several values, whose median is the line; a dotted one is the paper's."""

    label: str
    x: Sequence[float]
    values: Sequence[Sequence[float]]
    ends: tuple[float, float] = (0.25, 0.75)
    dotted: bool = False


def tracks(
    panels: Mapping[str, Sequence[Track]], axes: tuple[str, str], title: str, band: str, ticks: Sequence[Any] = ()
) -> Figure:
    """Draw medians in panels, a band between two quantiles; y is logarithmic but for per cents, x may count ticks."""
    import numpy as np

    from safestep.plots import style
    from safestep.plots.frame import log_axis, log_frame
    from safestep.plots.lines import draw_curve, explain_band
    from safestep.plots.panel import (
        bare_axes,
        grid_of_panels,
        name_axes,
        name_figure,
        name_small,
        panel,
        shared_legend,
        single_figure,
    )

    if len(panels) > 1:
        figure = grid_of_panels(len(panels), x=axes[0], y=axes[1])
    else:
        figure = single_figure()
        name_axes(bare_axes(panel(figure)), "", *axes)
    colours = style.palette(track.label for drawn in panels.values() for track in drawn)
    edges = []
    for ax, (name, drawn) in zip(figure.axes, panels.items(), strict=False):
        for label, places, values, ends, dotted in drawn:
            low, middle, high = (
                np.array([np.quantile(one, q) for one in values]).tolist() for q in (ends[0], 0.5, ends[1])
            )
            look: dict[str, Any] = {"ls": ":", "label": "the paper"} if dotted else {"label": label}
            draw_curve(ax, places, middle, color=colours[label], band=(low, high), lw=1.6, **look)
            edges += low + high
        name_small(ax, name)
    for ax in figure.axes:
        if "%" in axes[1]:
            ax.set_ylim(-3, 103)
        else:
            log_axis(ax, *log_frame(edges))
        if ticks:
            ax.set_xticks(range(len(ticks)), [str(one) for one in ticks])
    explain_band(figure.axes[0], band)
    name_figure(figure, title)
    shared_legend(figure)
    return figure


def dots_in_the_plane(moments: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw the zeros of samples in the upper half plane, in bounds: the disc that is free of them, and the radius."""
    from matplotlib.patches import Circle

    from safestep.plots import style
    from safestep.plots.panel import grid_of_panels, name_figure, name_small, shared_legend

    figure = grid_of_panels(max(1, len(moments)), x="Re t, in bounds", y="Im t")
    for ax, (name, moment) in zip(figure.axes, moments.items(), strict=False):
        ax.add_patch(Circle((0, 0), 1, color=style.COLOURS["cap"], alpha=0.25, lw=0, label="bound π/Δ of the batch"))
        exact = min(math.hypot(*zero) for zero in moment["zeros"])
        ax.add_patch(Circle((0, 0), exact, fill=False, ec=style.COLOURS["pin"], lw=1.4, label="exact radius"))
        for right, words, colour in (
            (True, "sample that is right", "#56B4E9"),
            (False, "wrong", style.COLOURS["fixed"]),
        ):
            dots = [zero for zero, known in zip(moment["zeros"], moment["right"], strict=True) if known == right]
            ax.plot(*zip(*dots, strict=True) if dots else ((), ()), ".", ms=3, alpha=0.6, color=colour, label=words)
        ax.set(xlim=(-_FAR, _FAR), ylim=(0, _FAR), aspect="equal")
        seen = sum(abs(x) < _FAR and y < _FAR for x, y in moment["zeros"])
        name_small(ax, f"{name}: {seen} of {len(moment['zeros'])}")
    name_figure(figure, "Nearest zeros of samples")
    shared_legend(figure)
    return figure
