"""The picture of final accuracy over seeds: one dot per seed and run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator, PercentFormatter

from safestep.plots import style
from safestep.plots.curves import quantile
from safestep.plots.panel import bare_axes, legend, name_axes
from safestep.records.report import number


def accuracy_over_seeds(rows: Iterable[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Draw the final accuracy of every seed as a dot, one line of dots per run, with a bar and a number at the median.

    Args:
        rows: the rows of a results.json; used are label, policy, final_acc (a fraction) and diverged.
        ax: where to draw; new axes without.

    Example:
        >>> row = {"label": "pin", "policy": "pin", "final_acc": 0.96, "diverged": False, "seed": 0}
        >>> [text.get_text() for text in accuracy_over_seeds([row, {**row, "seed": 1}]).texts]
        ['96.0 %']
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["label"], []).append(row)
    ax = row_axes(list(groups), ax)
    for place, group in enumerate(groups.values()):
        colour = style.colour(group[0]["policy"])
        ax.get_yticklabels()[place].set_color(colour)
        values = [number(row["final_acc"]) for row in group]
        median = quantile(values, 0.5)
        ax.vlines(median, place - 0.4, place + 0.4, color=colour, lw=3.0, alpha=0.5, zorder=3)
        write_beside(ax, place, f"{100 * median:.1f} %", colour)
        for i, (row, value) in enumerate(zip(group, values, strict=True)):
            # Seeds of equal accuracy must not hide each other.
            height = place + (0.0 if len(group) == 1 else 0.5 * (i / (len(group) - 1) - 0.5))
            marker, edge, width = ("x", colour, 1.6) if row["diverged"] else ("o", "white", 0.5)
            ax.plot(value, height, marker, color=colour, mec=edge, mew=width, ms=5.5, clip_on=False, zorder=4)
    ax.set_xlim(0, 1.0)
    ax.xaxis.set_major_locator(MultipleLocator(0.25))
    ax.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    name_axes(ax, "Accuracy over seeds", "final test accuracy", "")
    for marker, meaning in (("o", "seed"), ("x", "diverged"), ("|", "median")):
        ax.plot([], [], marker, color=style.FAINT, ms=10 if marker == "|" else 5.5, mew=2, label=meaning)
    legend(ax)
    return ax


def row_axes(names: list[str], ax: Axes | None) -> Axes:
    """Return axes with one row for each name, the first on top, and a grid along x."""
    ax = bare_axes(ax)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color=style.GRID, lw=0.7)
    ax.set_yticks(range(len(names)), names, fontsize=style.LABEL_SIZE)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.5, -0.5)
    return ax


def write_beside(ax: Axes, place: float, text: str, colour: str) -> None:
    """Write a text right of a row."""
    ax.annotate(text, (1, place), (10, 0), ax.get_yaxis_transform(), "offset points",
                color=colour, fontsize=style.LABEL_SIZE, va="center", annotation_clip=False)  # fmt: skip
