"""The picture of what control costs: steps to a target against those without it, one line of dots per case."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from safestep.plots import style
from safestep.plots.panel import legend, name_axes
from safestep.plots.seeds import row_axes, write_beside
from safestep.records.report import number

_LAW, _OTHER = "curvature", "secant"
_KEYS = {"student", "optimizer", "batch", "rate", "law", "slowdown", "most_slowdown", "held_share"}
_FIRST, _LAST = 0.7, 1.5
"""Between which factors the axis runs."""


def slowdowns_of(summaries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the summaries of a results.json that tell what control costs: of quiet runs, with a number of steps.

    Example:
        >>> slowdowns_of([{"label": "pin"}])
        []
    """
    return [
        row
        for row in summaries
        if row.keys() >= _KEYS
        and row["rate"] == "quiet"
        and row["law"] in {_LAW, _OTHER}
        and not math.isnan(number(row["slowdown"]))
    ]


def slowdown(rows: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Draw the steps to the target, over those without control, as a dot for every case, medians over seeds.

    Right of each row stands the share of held steps. A triangle on the edge lies beyond the frame.

    Args:
        rows: see `slowdowns_of`.
        ax: where to draw; new axes without.

    Example:
        >>> row = {"student": "linear", "optimizer": "sgd", "batch": "full", "rate": "quiet", "law": "curvature",
        ...        "slowdown": 1.02, "most_slowdown": 1.05, "held_share": 0.031}
        >>> ax = slowdown([row])
        >>> ax.get_yticklabels()[0].get_text(), ax.texts[0].get_text()
        ('linear, SGD, full', '3.1 %')
    """
    cases = list(dict.fromkeys(map(_case, rows)))
    ax = row_axes(cases, ax)
    looks: dict[str, dict[str, Any]] = {
        _LAW: {"color": style.COLOURS["cap"], "mec": "white", "mew": 0.6, "ms": 6.5, "zorder": 4},
        _OTHER: {"color": style.FAINT, "mfc": "white", "mew": 1.0, "ms": 4.8, "zorder": 3},
    }
    for row in rows:
        place, factor = cases.index(_case(row)), number(row["slowdown"])
        marker = "o" if _FIRST <= factor <= _LAST else ">" if factor > _LAST else "<"
        ax.plot(min(max(factor, _FIRST), _LAST), place, marker, clip_on=False, **looks[row["law"]])
        if row["law"] == _LAW:
            ax.fill_betweenx([place - 0.5, place + 0.5], row["most_slowdown"], _LAST, color=style.GRID, lw=0, zorder=0,
                             label="more than allowed")  # fmt: skip
            write_beside(ax, place, f"{100 * number(row['held_share']):.1f} %", style.FAINT)
    ax.plot([], [], " ", label="at the right: steps held")
    ax.axvline(1.0, color=style.INK, lw=1.0, zorder=1)
    ax.set_xlim(_FIRST, _LAST)
    ax.spines["left"].set_visible(False)
    name_axes(ax, "What control costs", "steps, over those without", "")
    for law in dict.fromkeys(row["law"] for row in rows):
        ax.plot([], [], "o", label=f"{law} law", **looks[law])
    legend(ax)
    return ax


def _case(row: Mapping[str, Any]) -> str:
    name = {"sgd": "SGD", "adam": "Adam"}.get(row["optimizer"], row["optimizer"])
    return f"{row['student']}, {name}, {row['batch']}"
