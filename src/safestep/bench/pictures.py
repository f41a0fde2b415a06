"""The pictures of a benchmark: what each contestant adds to the plain step, and how that grows with size."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from safestep.bench.bench_tables import Record, percent, who
from safestep.bench.contestants import AGAIN, METHODS, PLAIN
from safestep.plots import style

Results = Mapping[str, Any]
"""What results.json holds."""
_COLOURS = {
    "exact": style.COLOURS["fixed"],
    "probe": style.COLOURS["cap"],
    "tiered": style.COLOURS["pin"],
    "torch.func.jvp": style.OTHER,
    AGAIN: style.FAINT,
}
_AXES = {"batch": "sequences in a batch", "length": "tokens in a sequence"}
"""Names of axes of `safestep bench scale` that are no names by themselves."""
_SMALL = 9.0
"""Points of all text but titles."""


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw what results.json holds as PNG files in a folder, which is made.

    Returns:
        The files. What was not measured is not drawn, and a figure of it that was drawn before is removed.
    """
    folder.mkdir(exist_ok=True)
    pictures = {"overhead": (overhead, memory), "scale": (scale,)}.get(results["bench"], ())
    files = []
    for picture in pictures:
        path, figure = folder / f"{picture.__name__}.png", picture(results)
        if figure is None:
            path.unlink(missing_ok=True)
        else:
            figure.savefig(path, dpi=style.DPI)
            files.append(path)
    return files


def overhead(results: Results) -> Figure | None:
    """Draw the time that each contestant adds, with quartiles; None if none was timed."""
    return _dots(results, "ratio_median", "Time of a step beyond that of the plain AdamW step", _how(results))


def memory(results: Results) -> Figure | None:
    """Draw the peak memory that each contestant adds; None if none was measured."""
    how = "All tensors count: parameters, gradients, optimizer, activations. 5th to 7th step."
    return _dots(results, "peak_ratio", "Peak memory beyond that of the plain AdamW step", how)


def scale(results: Results) -> Figure | None:
    """Draw the time that each contestant adds against size, a panel for each axis; None if there is no row."""
    rows = _measured(results, "ratio_median")
    names = list(dict.fromkeys(row["axis"] for row in rows))
    if not names:
        return None
    down = (len(names) + 1) // 2
    figure = _figure(
        0.9 + 2.75 * down, "Time of a step beyond that of the plain AdamW step, as the task grows", _how(results)
    )
    panels = list(figure.subplots(down, min(len(names), 2), sharey=True, squeeze=False).flat)
    for ax, name in zip(panels, names, strict=False):
        members = sorted((row for row in rows if row["axis"] == name), key=lambda row: row["size"])
        for contestant in dict.fromkeys(map(who, members)):
            curve = [row for row in members if who(row) == contestant]
            x, y = [row["size"] for row in curve], [_percents(row)[0] for row in curve]
            ax.plot(x, y, lw=1.5, label=contestant, **_mark(curve[0]))
            low, high = ([_percents(row)[place] for row in curve] for place in (1, 2))
            ax.vlines(x, low, high, color=_colour(curve[0]), lw=2.2, alpha=0.45, zorder=1.5)
        ticks = sorted({row["size"] for row in members})
        ax.set_xscale("log")
        ax.set_xticks(ticks, [_short(size) for size in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.axhline(0, color=style.FAINT, lw=0.9)
        ax.set_title(_AXES.get(name, name), loc="left", fontsize=style.TEXT_SIZE, fontweight="bold", color=style.INK)
        _dress(ax, ax.yaxis, ticks=6)
    for ax in panels[len(names) :]:
        ax.set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=_SMALL)
    return figure


def _dots(results: Results, column: str, title: str, note: str) -> Figure | None:
    """Draw a dot with its number for each contestant, a panel for each model; "(!)" marks a row that has a flag."""
    rows = _measured(results, column)
    groups = [(about, list(members)) for about, members in groupby(rows, key=lambda row: row["about"])]
    if not groups:
        return None
    names = list(dict.fromkeys(map(who, rows)))
    figure = _figure(1.9 + 0.27 * len(names), title, note)
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for ax, (about, members) in zip(panels, groups, strict=True):
        for row in members:
            y, (middle, low, high) = names.index(who(row)), _percents(row, column)
            ax.plot([low, high], [y, y], color=_colour(row), lw=2.2, alpha=0.45, solid_capstyle="butt")
            ax.plot([middle], [y], ls="", **_mark(row))
            text = percent(row[column]) + (" (!)" if row["flag"] else "")
            place, away = (max(middle, high), y), (7, 0)
            ax.annotate(text, place, away, textcoords="offset points", va="center", fontsize=_SMALL, color=style.INK)
        lowest, highest = ax.get_xlim()
        ax.set_xlim(lowest, highest + 0.5 * (highest - lowest))  # on the right is room for the numbers
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.set_yticks(range(len(names)), names)
        ax.axvline(0, color=style.FAINT, lw=0.9)
        parts = about.replace(" ", "\xa0").replace(",\xa0", ", ")  # lines are broken at commas only
        ax.set_title(fill(parts, 26).replace("\xa0", " "), loc="left", fontsize=_SMALL, color=style.INK)
        _dress(ax, ax.xaxis, ticks=3)
        ax.tick_params(axis="y", length=0)
    return figure


def _measured(results: Results, column: str) -> list[Record]:
    return [row for row in results["rows"] if row[column] is not None and row["method"] != PLAIN]


def _percents(row: Record, column: str = "ratio_median") -> tuple[float, float, float]:
    """Return what a row adds to the plain step, and the quartiles of that where there are any."""
    quartiles = ("ratio_low", "ratio_high") if column == "ratio_median" else (column, column)
    middle, low, high = (100 * (row[key] - 1) for key in (column, *quartiles))
    return middle, low, high


def _colour(row: Record) -> str:
    return _COLOURS.get(row["method"], style.INK)


def _mark(row: Record) -> dict[str, Any]:
    """Return how to draw a row: hollow far inside the target, where the same method also has capped steps."""
    own, hollow = _colour(row), row["method"] in METHODS and row["situation"] == "inside"
    return {"color": own, "marker": "o", "ms": 6.0, "mfc": "white" if hollow else own, "mec": own, "mew": 1.4}


def _figure(high: float, title: str, note: str) -> Figure:
    """Return a figure of this height in inches, with what is seen and how it was measured above everything else."""
    figure = Figure(figsize=(2 * style.WIDTH, high), layout="constrained")
    figure.suptitle(f"{title}\n", x=0.01, ha="left", fontsize=style.TITLE_SIZE, fontweight="bold", color=style.INK)
    figure.text(0.01, 1 - 0.36 / high, note, va="top", fontsize=_SMALL, color=style.FAINT)
    return figure


def _how(results: Results) -> str:
    rounds, machine = results["settings"]["rounds"], results["environment"]
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}"
    where = f"{machine['device']}, {threads}, torch {machine['torch']}"
    return f"Median and quartiles of {rounds} interleaved rounds. {where}."


def _dress(ax: Axes, measured: Axis, ticks: int) -> None:
    """Give axes a quiet frame, and percents along the axis that something is measured on."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(style.FAINT)
    ax.tick_params(colors=style.INK, labelsize=_SMALL, length=3)
    ax.set_axisbelow(True)
    measured.grid(visible=True, color=style.GRID, lw=0.7)
    measured.set_major_locator(MaxNLocator(ticks))
    measured.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.0f} %" if value else "0"))


def _short(size: float) -> str:
    """Write a size shortly.

    Example:
        >>> _short(128), _short(16_384), _short(234_000), _short(5_300_000)
        ('128', '16384', '234k', '5.3M')
    """
    if size >= 1e6:
        return f"{size / 1e6:.2g}M"
    return f"{size / 1e3:.0f}k" if size >= 1e5 else f"{size:.0f}"
