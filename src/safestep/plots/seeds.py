"""The picture of final accuracy over seeds: one dot per seed and run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator, PercentFormatter

from safestep.plots import headlines as say
from safestep.plots import style
from safestep.plots.curves import quantile
from safestep.plots.panel import Panel, bare_axes, headline, name_axes
from safestep.records.report import number

_MEDIANS = 58.0
"""Points right of the axes, for the medians in numbers."""


def accuracy_over_seeds(rows: Iterable[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Draw the final accuracy of every seed as a dot, one line of dots per run, with a bar at the median.

    Args:
        rows: the rows of a results.json; used are label, policy, final_acc (a fraction) and diverged.
        ax: where to draw; new axes without.

    Returns:
        The axes.

    Example:
        >>> row = {"label": "pin", "policy": "pin", "final_acc": 0.96, "diverged": False, "seed": 0}
        >>> print(*accuracy_over_seeds([row, {**row, "seed": 1}]).get_title(loc="left").split())
        Over 2 seeds the median accuracy of pin is 96.0 %
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["label"], []).append(row)
    ax = bare_axes(ax)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color=style.GRID, lw=0.7)
    for place, group in enumerate(groups.values()):
        colour = style.colour(group[0]["policy"])
        values = [number(row["final_acc"]) for row in group]
        median = quantile(values, 0.5)
        ax.vlines(median, place - 0.4, place + 0.4, color=colour, lw=3.0, alpha=0.5, zorder=3)
        ax.annotate(f"{100 * median:.1f} %", (1, place), (10, 0), ax.get_yaxis_transform(), "offset points",
                    color=colour, fontsize=style.LABEL_SIZE, va="center")  # fmt: skip
        for i, (row, value) in enumerate(zip(group, values, strict=True)):
            # Seeds of equal accuracy must not hide each other.
            height = place + (0.0 if len(group) == 1 else 0.5 * (i / (len(group) - 1) - 0.5))
            marker, edge, width = ("x", colour, 1.6) if row["diverged"] else ("o", "white", 0.5)
            ax.plot(value, height, marker, color=colour, mec=edge, mew=width, ms=5.5, clip_on=False, zorder=4)
    ax.set_yticks(range(len(groups)), list(groups))
    for tick, group in zip(ax.get_yticklabels(), groups.values(), strict=True):
        tick.set_color(style.colour(group[0]["policy"]))
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.set_xlim(0, 1.0)
    ax.xaxis.set_major_locator(MultipleLocator(0.2))
    ax.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    name_axes(ax, "final test accuracy", "")
    _widen_for_labels(ax)
    crosses = " × diverged." if any(row["diverged"] for group in groups.values() for row in group) else ""
    headline(ax, _title(groups), f"One dot per seed, a bar at the median.{crosses}")
    return ax


def _widen_for_labels(ax: Axes) -> None:
    """Make room in a panel for the names of the runs and their medians; other axes are the caller's to lay out."""
    if isinstance(ax, Panel):
        wide = max((name.get_window_extent().width for name in ax.get_yticklabels()), default=0.0)
        ax.borders = (wide * 72 / ax.figure.dpi + 12, _MEDIANS, 0.0)
        ax.fit()


def _title(groups: Mapping[str, list[Mapping[str, Any]]]) -> str:
    count = max((len(group) for group in groups.values()), default=0)
    seeds = f"{count} seeds" if count != 1 else "1 seed"
    medians = {label: quantile([number(row["final_acc"]) for row in group], 0.5) for label, group in groups.items()}
    known = {label: value for label, value in medians.items() if math.isfinite(value)}
    if not known:
        return "No run has ended yet"
    top = max(known.values())
    best = [label for label, value in known.items() if value == top]
    if len(known) == 1:
        return f"Over {seeds} the median accuracy of {best[0]} is {100 * top:.1f} %"
    low = min(known.values())
    worst = [label for label, value in known.items() if value == low]
    text = f"{say.named_list(best)} {'has' if len(best) == 1 else 'have'} the best median over {seeds}, "
    return say.sentence(f"{text}{100 * top:.1f} %; {say.named_list(worst)} the lowest, {100 * low:.1f} %")
