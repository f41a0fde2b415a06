"""The picture of a drift map: which learning rates survive which drift gains, one panel per law."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator

from safestep.plots import style
from safestep.plots.frame import log_axis
from safestep.plots.panel import bare_axes, name_axes, wrap

_COLOURS = ("#e6eef4", "#f0c987", style.COLOURS["fixed"])
_WORDS = ("loss never above its start", "loss jumps, and comes back", "diverges")
_COLUMNS, _CELL, _HEAD, _FOOT = 2, 1.85, 0.92, 0.12
"""Panels in a row, inches of a panel, and inches above and below the panels."""
_RISEN = 1 + 1e-3
"""A loss above its start by this factor has risen."""


@dataclass(frozen=True)
class DriftMap:
    """What became of a plane of runs under one law.

    Attributes:
        label: of the law.
        rates: learning rates, rising.
        gains: drift gains, rising.
        limits: for each gain the learning rate above which theory says that a run without a throttle diverges.
        fates: for each gain and rate 0, 1 or 2: the loss never rose above its start, it did, the run diverged.
    """

    label: str
    rates: Sequence[float]
    gains: Sequence[float]
    limits: Sequence[float]
    fates: Sequence[Sequence[int]]

    @property
    def share_diverged(self) -> float:
        """Of the cells."""
        cells = [fate for row in self.fates for fate in row]
        return sum(fate == 2 for fate in cells) / len(cells)


def drift_maps_of(records: Iterable[Mapping[str, Any]]) -> list[DriftMap]:
    """Gather the lines of kind "map" of a records.jsonl; of several starts the first is drawn.

    Args:
        records: parsed lines, each one gain of the map of one law.

    Example:
        >>> line = {"kind": "map", "label": "none", "seed": 7, "gain": 1.0, "rates": [0.1], "limit_rate": 1.8,
        ...         "diverged": [True], "peak_loss": ["inf"], "first_loss": [1.0]}
        >>> drift_maps_of([line])[0].share_diverged
        1.0
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if record.get("kind") == "map":
            group = groups.setdefault(record["label"], [])
            if not group or group[0]["seed"] == record["seed"]:
                group.append(record)
    return [_gathered(label, sorted(group, key=lambda row: row["gain"])) for label, group in groups.items()]


def drift_maps(maps: Sequence[DriftMap]) -> Figure:
    """Draw the maps, one panel each, with the line of theory.

    Args:
        maps: see `drift_maps_of`; at least one.

    Returns:
        A figure outside pyplot: save it, or, where `%matplotlib inline` is on, show it as the last line of a cell.

    Example:
        >>> row = DriftMap("none", [0.1, 1.0], [1.0, 4.0], [1.8, 0.1], [[0, 0], [0, 2]])
        >>> drift_maps([row]).axes[0].get_title(loc="left")
        'none: 25.0 %'
    """
    rows = -(-len(maps) // _COLUMNS)
    wide, high = style.WIDTH, rows * _CELL + _HEAD + _FOOT
    figure = Figure(figsize=(wide, high), dpi=style.DPI)
    FigureCanvasAgg(figure)
    left, between, under = 0.5, 0.16, 0.45
    side = (wide - left - between - 0.08) / _COLUMNS
    for place, shown in enumerate(maps):
        row, column = divmod(place, _COLUMNS)
        bottom = _FOOT + (rows - 1 - row) * _CELL + under
        cell = (left + column * (side + between), bottom, side, _CELL - under - 0.25)
        ax = bare_axes(figure.add_axes((cell[0] / wide, cell[1] / high, cell[2] / wide, cell[3] / high)))
        last = place + _COLUMNS >= len(maps)
        _draw(ax, shown, x="learning rate η" if last else "", y="gain γ" if column == 0 else "")
    text = "\n".join(wrap(_title(maps), 72 * wide - 12, style.TITLE_SIZE, "bold"))
    figure.text(0.08 / wide, 1 - 0.08 / high, text, fontsize=style.TITLE_SIZE, weight="bold", color=style.INK, va="top")
    _key(figure, maps, high)
    return figure


def _draw(ax: Axes, shown: DriftMap, x: str, y: str) -> None:
    rates, gains = _edges(shown.rates), _edges(shown.gains)
    ax.pcolormesh(rates, gains, shown.fates, cmap=ListedColormap(_COLOURS), vmin=-0.5, vmax=2.5, rasterized=True)
    log_axis(ax, rates[0], rates[-1], along="x")
    log_axis(ax, gains[0], gains[-1])
    ax.xaxis.set_major_locator(LogLocator())
    ax.yaxis.set_major_locator(LogLocator(base=2))
    ax.plot(shown.limits, shown.gains, color=style.INK, lw=1.3, ls=(0, (4, 2)))
    ax.grid(visible=False)
    name_axes(ax, x, y)
    if not y:
        ax.set_yticklabels([])
    title = f"{shown.label}: {100 * shown.share_diverged:.1f} %"
    ax.set_title(title, loc="left", fontsize=style.TEXT_SIZE - 1.5, color=style.INK, fontweight="bold", pad=4)


def _key(figure: Figure, maps: Sequence[DriftMap], high: float) -> None:
    used = sorted({fate for shown in maps for row in shown.fates for fate in row})
    handles: list[Any] = [Patch(color=_COLOURS[fate], label=_WORDS[fate]) for fate in used]
    line = figure.axes[0].lines[0]
    line.set_label("theory: ηγ²λ = 2")
    figure.legend(
        handles=[*handles, line],
        loc="upper left",
        bbox_to_anchor=(0.0, 1 - 0.48 / high),
        ncols=2,
        frameon=False,
        fontsize=style.TEXT_SIZE - 2,
        labelcolor=style.FAINT,
        handlelength=1.6,
        columnspacing=1.2,
        borderaxespad=0.3,
    )


def _title(maps: Sequence[DriftMap]) -> str:
    shares = {shown.label: f"{100 * shown.share_diverged:.1f} %" for shown in maps}
    safe = [label for label, share in shares.items() if share == "0.0 %"]
    first = f"{maps[0].label}: {shares[maps[0].label]} of the plane diverges"
    others = [label for label in safe if label != maps[0].label]
    return f"{first[:1].upper()}{first[1:]}{f'; {others[-1]}: none' if others else ''}"


def _edges(values: Sequence[float]) -> list[float]:
    """Return the borders of cells around values that rise in equal ratios."""
    ratio = (values[1] / values[0]) ** 0.5 if len(values) > 1 else 2.0
    return [values[0] / ratio, *(a * (b / a) ** 0.5 for a, b in itertools.pairwise(values)), values[-1] * ratio]


def _gathered(label: str, rows: Sequence[Mapping[str, Any]]) -> DriftMap:
    return DriftMap(
        label,
        rows[0]["rates"],
        [row["gain"] for row in rows],
        [row["limit_rate"] for row in rows],
        [list(map(_fate, row["diverged"], row["first_loss"], row["peak_loss"])) for row in rows],
    )


def _fate(diverged: bool, first: Any, peak: Any) -> int:
    return 2 if diverged else int(float(peak) > _RISEN * float(first))
