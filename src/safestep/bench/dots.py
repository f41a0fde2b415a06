"""Dots with whiskers: what each contestant adds to the plain step, a panel for each model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safestep.bench import look, row_text
from safestep.bench.contestants import PLAIN
from safestep.bench.look import Results
from safestep.bench.row_text import Record
from safestep.plots import style

_ROW, _ABOVE, _BELOW, _LEFT = 0.27, 1.3, 0.4, 1.35
"""Inches: of a row of dots, above and below all rows, and of the names left of them."""

Values = Callable[[Record], tuple[float, float, float]]
"""Median, first and third quartile of a ratio to the plain step."""


def overhead(results: Results) -> Figure | None:
    """Draw the time that each contestant adds, with quartiles; None if none was timed."""
    rows = [row for row in results["rows"] if row["ratio_median"] is not None and row["method"] != PLAIN]
    return _dots(
        rows,
        lambda row: (row["ratio_median"], row["ratio_low"], row["ratio_high"]),
        "Time of a step beyond that of the plain AdamW step",
        look.how(results),
    )


def memory(results: Results) -> Figure | None:
    """Draw the peak memory that each contestant adds; None if none was measured."""
    rows = [row for row in results["rows"] if row["peak_ratio"] is not None and row["method"] != PLAIN]
    return _dots(
        rows,
        lambda row: (row["peak_ratio"], row["peak_ratio"], row["peak_ratio"]),
        "Peak memory beyond that of the plain AdamW step",
        "All tensors count: parameters, gradients, optimizer, activations. 5th to 7th step.",
    )


def _dots(rows: Sequence[Record], values: Values, title: str, note: str) -> Figure | None:
    groups = [(about, list(members)) for about, members in groupby(rows, key=lambda row: row["about"])]
    if not groups:
        return None
    names = list(dict.fromkeys(row_text.who(row) for row in rows))
    high = _ABOVE + _ROW * len(names) + _BELOW
    figure = look.blank(high)
    look.title(figure, title, note)
    left, gap = _LEFT / figure.get_figwidth(), 0.02
    wide = (1 - left) / len(groups)
    for place, (about, members) in enumerate(groups):
        ax = figure.add_axes((left + place * wide, _BELOW / high, wide - gap, _ROW * len(names) / high))
        _panel(ax, members, values, names)
        ax.set_title(_lines(about), loc="left", fontsize=look.SMALL, color=style.INK, linespacing=1.2)
        if place:
            ax.set_yticklabels([])
    return figure


def _panel(ax: Axes, rows: Sequence[Record], values: Values, names: Sequence[str]) -> None:
    """Draw one model, the first contestant on top, each with its number; "(!)" marks a row that has a flag."""
    points = {row_text.who(row): [100 * (value - 1) for value in values(row)] for row in rows}
    lowest = min(0.0, *(low for _, low, _ in points.values()))
    width = max(1.0, *(high for _, _, high in points.values())) - lowest
    ax.set_xlim(lowest - 0.05 * width, lowest + 1.55 * width)  # on the right is room for the numbers
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_yticks(range(len(names)), names)
    look.dress(ax, ax.xaxis, ticks=3)
    ax.set_xticks([tick for tick in ax.get_xticks() if lowest - 0.05 * width <= tick <= lowest + 1.3 * width])
    ax.axvline(0, color=style.FAINT, lw=0.9)
    for row in rows:
        y, (middle, low, high) = names.index(row_text.who(row)), points[row_text.who(row)]
        ax.plot([low, high], [y, y], color=look.colour(row), lw=2.2, alpha=0.45, solid_capstyle="butt")
        ax.plot([middle], [y], ls="", **look.mark(row))
        ax.annotate(
            row_text.percent(values(row)[0]) + (" (!)" if row["flag"] else ""),
            (max(middle, high), y),
            (7, 0),
            textcoords="offset points",
            va="center",
            fontsize=look.SMALL,
            color=style.INK,
        )


def _lines(about: str, most: int = 24) -> str:
    """Break the sizes of a model at commas into lines of at most ``most`` letters, where that is possible.

    Example:
        >>> _lines("GPT d 256, 4 layers, 128 tokens, 4096 classes").splitlines()
        ['GPT d 256, 4 layers,', '128 tokens, 4096 classes']
    """
    lines: list[str] = []
    for part in about.split(", "):
        if lines and len(lines[-1]) + len(part) + 2 <= most:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return ",\n".join(lines)
