"""The picture of what control costs: steps to a target against those without it, one line of dots per case."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from safestep.plots import style
from safestep.plots.headlines import sentence
from safestep.plots.panel import Panel, bare_axes, headline, name_axes
from safestep.records.report import number

_LAW, _OTHER = "curvature", "secant"
_KEYS = {"student", "optimizer", "batch", "rate", "law", "slowdown", "most_slowdown", "held_share"}
_FIRST, _LAST = 0.7, 1.5
"""Between which factors the axis runs."""
_SHARES = 48.0
"""Points right of the axes, for the shares of held steps."""


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
    """Draw the steps to the target, over those without control, as a dot for every case.

    Args:
        rows: see `slowdowns_of`.
        ax: where to draw; new axes without.

    Returns:
        The axes.

    Example:
        >>> row = {"student": "linear", "optimizer": "sgd", "batch": "full", "rate": "quiet", "law": "curvature",
        ...        "slowdown": 1.02, "most_slowdown": 1.05, "held_share": 0.0}
        >>> print(*slowdown([row]).get_title(loc="left").split())
        Where nothing needs control it costs at most 1.02 times the steps
    """
    ax = bare_axes(ax)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color=style.GRID, lw=0.7)
    cases = list(dict.fromkeys(_case(row) for row in rows))
    for row in rows:
        place, factor = cases.index(_case(row)), number(row["slowdown"])
        ours = row["law"] == _LAW
        if ours:
            ax.fill_betweenx([place - 0.5, place + 0.5], row["most_slowdown"], _LAST, color=style.GRID, lw=0, zorder=0)
            share = f"{100 * number(row['held_share']):.1f} %"
            ax.annotate(share, (1, place), (8, 0), ax.get_yaxis_transform(), "offset points",
                        color=style.FAINT, fontsize=style.LABEL_SIZE - 2, va="center")  # fmt: skip
        inside = _FIRST <= factor <= _LAST
        marker = "o" if inside else ">" if factor > _LAST else "<"
        main = style.colour("cap") if ours else style.FAINT
        ax.plot(min(max(factor, _FIRST), _LAST), place, marker, color=main, mfc=main if ours else "white",
                mec="white" if ours else main, mew=0.6 if ours else 1.0, ms=6.5 if ours else 4.8,
                clip_on=False, zorder=4 if ours else 3)  # fmt: skip
    ax.axvline(1.0, color=style.INK, lw=1.0, zorder=1)
    ax.set_yticks(range(len(cases)), cases, fontsize=style.LABEL_SIZE - 2)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(cases) - 0.5, -0.5)
    ax.set_xlim(_FIRST, _LAST)
    ax.spines["left"].set_visible(False)
    name_axes(ax, "steps to target, over those without", "")
    _widen_for_labels(ax)
    beyond = " Triangles lie beyond the frame." if any(_outside(row) for row in rows) else ""
    other = " Hollow: the secant law." if any(row["law"] == _OTHER for row in rows) else ""
    headline(ax, _title(rows), f"Medians over seeds. Grey is forbidden. Right: share of held steps.{other}{beyond}")
    return ax


def _case(row: Mapping[str, Any]) -> str:
    name = {"sgd": "SGD", "adam": "Adam"}.get(row["optimizer"], row["optimizer"])
    return f"{row['student']}, {name}, {row['batch']}"


def _outside(row: Mapping[str, Any]) -> bool:
    return not _FIRST <= number(row["slowdown"]) <= _LAST


def _widen_for_labels(ax: Axes) -> None:
    if isinstance(ax, Panel):
        wide = max((name.get_window_extent().width for name in ax.get_yticklabels()), default=0.0)
        ax.borders = (wide * 72 / ax.figure.dpi + 12, _SHARES, 0.0)
        ax.fit()


def _title(rows: Sequence[Mapping[str, Any]]) -> str:
    ours = [row for row in rows if row["law"] == _LAW]
    if not ours:
        return "No quiet run was controlled by the curvature on the batch"
    most = max(ours, key=lambda row: number(row["slowdown"]))
    slow = [row for row in ours if number(row["slowdown"]) > row["most_slowdown"]]
    if slow:
        return sentence(f"{len(slow)} of {len(ours)} quiet cases take more steps than allowed; worst {_case(most)}")
    return f"Where nothing needs control it costs at most {number(most['slowdown']):.2f} times the steps"
