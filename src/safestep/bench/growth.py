"""Curves of the overhead against size: parameters, batch, sequence length, classes, a panel for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from safestep.bench import look, row_text
from safestep.bench.contestants import PLAIN
from safestep.bench.look import Results
from safestep.bench.row_text import Record
from safestep.plots import style
from safestep.plots.endlabels import spread

_TITLES: Mapping[str, str] = {
    "parameters": "parameters",
    "batch": "sequences in a batch",
    "length": "tokens in a sequence",
    "classes": "classes",
}
_HIGH, _ABOVE, _BELOW = 2.75, 0.9, 0.35
"""Inches: of a row of panels, and of what is above and below all of them."""
_LABEL = 0.065
"""Height of a label, as a share of its panel."""
_LEADER = {"arrowstyle": "-", "lw": 0.6, "shrinkA": 1, "shrinkB": 3, "relpos": (0, 0.5)}


def scale(results: Results) -> Figure | None:
    """Draw the time that each contestant adds against size, with quartiles; None if there is no row."""
    rows = [row for row in results["rows"] if row["ratio_median"] is not None and row["method"] != PLAIN]
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    if not axes:
        return None
    across, down = min(len(axes), 2), (len(axes) + 1) // 2
    high = _ABOVE + down * _HIGH + _BELOW
    figure = look.blank(high)
    look.title(figure, "Time of a step beyond that of the plain AdamW step, as the task grows", look.how(results))
    ends = [_percent(row[key]) for row in rows for key in ("ratio_low", "ratio_high")]
    low, top = min(0.0, *ends), max(1.0, *ends)
    for place, axis in enumerate(axes):
        ax = figure.add_subplot(down, across, place + 1)
        ax.set_ylim(low - 0.05 * (top - low), top + 0.05 * (top - low))
        _panel(ax, [row for row in rows if row["axis"] == axis])
        ax.set_title(_TITLES[axis], loc="left", fontsize=style.TEXT_SIZE, fontweight="bold", color=style.INK)
    figure.subplots_adjust(0.075, _BELOW / high, 0.985, 1 - _ABOVE / high, wspace=0.2, hspace=0.32)
    return figure


def _panel(ax: Axes, rows: Sequence[Record]) -> None:
    sizes = sorted({row["size"] for row in rows})
    first, last = sizes[0], sizes[-1]
    ax.set_xscale("log")
    decades = max(last / first, 2.0)
    ax.set_xlim(first / decades**0.05, last * decades**0.62)  # on the right is room for the labels
    ax.set_xticks(sizes, [_short(value) for value in sizes])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    look.dress(ax, ax.yaxis, ticks=6)
    ax.axhline(0, color=style.FAINT, lw=0.9)
    curves: dict[str, list[Record]] = {}
    for row in sorted(rows, key=lambda row: row["size"]):
        curves.setdefault(row_text.who(row), []).append(row)
    for members in curves.values():
        x = [row["size"] for row in members]
        ax.plot(x, [_percent(row["ratio_median"]) for row in members], **look.mark(members[0]), lw=1.5)
        low, high = ([_percent(row[key]) for row in members] for key in ("ratio_low", "ratio_high"))
        ax.vlines(x, low, high, color=look.colour(members[0]), lw=2.2, alpha=0.45, zorder=1.5)
    _label(ax, [(name, members[-1]) for name, members in curves.items()], last * decades**0.07)


def _label(ax: Axes, ends: Sequence[tuple[str, Record]], x: float) -> None:
    """Write the name of each curve right of its end, apart from each other."""
    low, high = ax.get_ylim()
    wanted = [_percent(row["ratio_median"]) for _, row in ends]
    for (name, row), y in zip(ends, spread(wanted, [_LABEL * (high - low)] * len(ends), low, high), strict=True):
        ax.annotate(
            name,
            (row["size"], _percent(row["ratio_median"])),
            (x, y),
            color=look.colour(row),
            fontsize=look.SMALL,
            va="center",
            arrowprops={**_LEADER, "color": look.colour(row)},
        )


def _percent(ratio: float) -> float:
    return 100 * (ratio - 1)


def _short(value: float) -> str:
    """Write a size shortly.

    Example:
        >>> _short(128), _short(16_384), _short(234_000), _short(5_300_000)
        ('128', '16384', '234k', '5.3M')
    """
    if value >= 1e6:
        return f"{value / 1e6:.2g}M"
    return f"{value / 1e3:.0f}k" if value >= 1e5 else f"{value:.0f}"
