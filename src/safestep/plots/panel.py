"""Panels: figures that matplotlib lays out, quiet axes, what they measure, and a legend below them."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from safestep._torch.extras import need
from safestep.plots.style import DPI, FAINT, GRID, HEIGHT, INK, LABEL_SIZE, LEAVES, TEXT_SIZE, TITLE_SIZE, WIDTH

_ACROSS, _HANDLE, _ROWS, _LONGEST = 54, 5, 8, 40
"""Characters of a legend as wide as a panel, and that a handle takes; rows, and characters of a label, at most."""
_SMALL = 21
"""Characters of a line above a small panel."""
_LEFT, _BELOW = -46, -36
"""Points from the lower left corner of the axes to the legend: past the ticks and what they count."""
_TEXT: dict[str, Any] = {"fontsize": LABEL_SIZE - 1.0, "labelcolor": INK, "handlelength": 2.2, "columnspacing": 1.0}


def single_figure(width: float = WIDTH, height: float = HEIGHT, *, dpi: float = DPI) -> Figure:
    """Return an empty figure outside pyplot, of so many inches, that lays out what it holds."""
    figure = Figure(figsize=(width, height), dpi=dpi, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    FigureCanvasAgg(figure)
    return figure


def panel(figure: Figure) -> Axes:
    """Add axes that fill a figure."""
    return figure.add_subplot()


def grid_of_panels(count: int, *, x: str, y: str) -> Figure:
    """Return a figure of small panels, two in a row, with axes in common that are named at the edges."""
    rows, columns = -(-count // 2), min(count, 2)
    figure = single_figure(WIDTH, 1.7 * rows + 1.3)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten().tolist()
    for spare in axes[count:]:
        spare.remove()
    for place, ax in enumerate(axes[:count]):
        last = place + columns >= count
        ax.tick_params(labelbottom=last)  # above a gap too
        name_axes(bare_axes(ax), "", x if last else "", y if place % columns == 0 else "")
    return figure


def figure_of(ax: Axes) -> Figure:
    """Return the whole figure that axes are part of."""
    figure = ax.figure
    return figure if isinstance(figure, Figure) else figure.figure


def bare_axes(ax: Axes | None = None) -> Axes:
    """Return the axes to draw on, cleared of ornament: those given, or those of a new pyplot figure."""
    if ax is None:
        pyplot = need("matplotlib.pyplot", "plots")
        ax = panel(pyplot.figure(figsize=(WIDTH, HEIGHT), dpi=110, layout="constrained"))
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FAINT)
    ax.tick_params(colors=FAINT, labelsize=TEXT_SIZE)
    ax.set_axisbelow(True)
    ax.grid(axis="y", color=GRID, lw=0.7)
    return ax


def name_axes(ax: Axes, title: str, x: str, y: str) -> None:
    """Write what is seen, and what the axes measure."""
    ax.set_title(title, loc="left", fontsize=TITLE_SIZE, fontweight="bold", color=INK)
    ax.set_xlabel(x, fontsize=TEXT_SIZE, color=FAINT)
    ax.set_ylabel(y, fontsize=TEXT_SIZE, color=FAINT)


def name_small(ax: Axes, title: str, colour: str = INK) -> None:
    """Write what one of several small panels shows, wrapped to its width."""
    ax.set_title(fill(title, _SMALL), loc="left", fontsize=TEXT_SIZE - 1.5, fontweight="bold", color=colour)


def name_figure(figure: Figure, title: str) -> None:
    """Write what several panels show above them, at the left."""
    if title:
        figure.suptitle(title, x=0.02, ha="left", fontsize=TITLE_SIZE + 1, fontweight="bold", color=INK)


def legend(ax: Axes) -> None:
    """Explain every label of the axes below them, if there are two; inside, where the figure lays out nothing.

    Axes without any data say so.
    """
    if not ax.has_data():
        ax.text(0.5, 0.5, "nothing to show", transform=ax.transAxes, ha="center", fontsize=TEXT_SIZE, color=FAINT)
    handles, labels, columns = _entries([ax])
    if len(labels) < 2:
        return
    place: dict[str, Any] = {"framealpha": 0.8}
    if figure_of(ax).get_layout_engine() is not None:
        corner = ax.transAxes + ScaledTranslation(_LEFT / 72, _BELOW / 72, ax.figure.dpi_scale_trans)
        place = {"frameon": False, "loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": corner}
    ax.legend(handles, labels, ncols=columns, **_TEXT, **place)


def shared_legend(figure: Figure, panels: int = 1) -> None:
    """Explain every label of all axes once, below them.

    Args:
        figure: where; legends of its axes are removed.
        panels: how many panels wide it is.
    """
    for ax in figure.axes:
        if own := ax.get_legend():
            own.remove()
    handles, labels, columns = _entries(figure.axes, panels)
    if labels:
        figure.legend(handles, labels, ncols=columns, **_TEXT, frameon=False, loc="outside lower center")


def _entries(axes: Sequence[Axes], panels: int = 1) -> tuple[list[Artist], list[str], int]:
    """Return handles and labels, each label once, and in how many columns they fit; the last may count the rest."""
    found: dict[str, Artist] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…", handle)
    found = dict(sorted(found.items(), key=lambda entry: entry[0] == LEAVES))  # last: it is about all of them
    longest = max(map(len, found), default=0)
    columns = max(1, min(len(found), panels * _ACROSS // (longest + _HANDLE)))
    most = _ROWS * columns
    if len(found) > most:
        rest = len(found) - most + 1
        found = {**dict(list(found.items())[: most - 1]), f"and {rest} more": Line2D([], [], color="none")}
    return list(found.values()), list(found), columns
