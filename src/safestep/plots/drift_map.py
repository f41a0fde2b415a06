"""The picture of a drift map: which learning rates survive which drift gains, one panel per law."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from safestep.plots import style
from safestep.plots.frame import log_axis
from safestep.plots.panel import grid_of_panels, name_figure, name_small, shared_legend

_FATES = {"never above its start": "#e6eef4", "jumps, and comes back": "#f0c987", "diverges": "#D55E00"}
"""What may become of a run, and its colour."""
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
    """Draw the maps, one panel each with the share of the plane that diverges, and the line of theory.

    Args:
        maps: see `drift_maps_of`; at least one.

    Returns:
        A figure outside pyplot: save it, or, where `%matplotlib inline` is on, show it as the last line of a cell.

    Example:
        >>> row = DriftMap("none", [0.1, 1.0], [1.0, 4.0], [1.8, 0.1], [[0, 0], [0, 2]])
        >>> drift_maps([row]).axes[0].get_title(loc="left")
        'none: 25.0%'
    """
    figure = grid_of_panels(len(maps), x="learning rate η", y="gain γ")
    for shown, ax in zip(maps, figure.axes, strict=True):
        _draw(ax, shown)
    first = figure.axes[0]
    first.plot([], [], color=style.INK, ls=(0, (4, 2)), label="theory: ηγ²λ = 2")
    present = {fate for shown in maps for row in shown.fates for fate in row}
    for fate, (words, colour) in enumerate(_FATES.items()):
        if fate in present:
            first.fill_between([], [], color=colour, lw=0, label=words)
    name_figure(figure, "Share that diverges after a drift")
    shared_legend(figure)
    return figure


def _draw(ax: Axes, shown: DriftMap) -> None:
    rates, gains, colours = _edges(shown.rates), _edges(shown.gains), ListedColormap(list(_FATES.values()))
    ax.pcolormesh(rates, gains, shown.fates, cmap=colours, vmin=-0.5, vmax=2.5, rasterized=True)
    log_axis(ax, rates[0], rates[-1], along="x")
    log_axis(ax, gains[0], gains[-1])
    ax.xaxis.set_major_locator(LogLocator())
    ax.yaxis.set_major_locator(LogLocator(base=2))
    ax.plot(shown.limits, shown.gains, color=style.INK, lw=1.3, ls=(0, (4, 2)))
    ax.grid(visible=False)
    name_small(ax, f"{shown.label}: {100 * shown.share_diverged:.1f}%")


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
