"""Pictures of a benchmark, from its results alone: what each contestant adds to a plain step, and how that grows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from safestep.bench import words
from safestep.bench.contestants import AGAIN, PLAIN
from safestep.bench.words import Record
from safestep.plots import style
from safestep.plots.endlabels import End, spread

_COLOURS: Mapping[str, str] = {
    "exact": style.COLOURS["fixed"],
    "probe": style.COLOURS["cap"],
    "tiered": style.COLOURS["pin"],
    "torch.func.jvp": style.OTHER,
}
_ROW, _HEAD, _FOOT = 0.27, 0.95, 0.5
"""Inches of a row of dots, and of what is above and below all rows."""
_SMALL = 9.0
_LEADER = {"arrowstyle": "-", "lw": 0.6, "shrinkA": 1, "shrinkB": 2, "relpos": (0, 0.5)}

Results = Mapping[str, Any]


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw what results.json holds as PNG files in a folder, which is made.

    Returns:
        The files.
    """
    folder.mkdir(exist_ok=True)
    pictures = {"overhead": overhead, "memory": memory} if results["bench"] == "overhead" else {"scale": scale}
    files = []
    for name, picture in pictures.items():
        figure = picture(results)
        if figure is not None:
            files.append(folder / f"{name}.png")
            figure.savefig(files[-1], dpi=style.DPI)
    return files


def overhead(results: Results) -> Figure | None:
    """Draw the time that each contestant adds, with quartiles, a panel for each model; None if none was timed."""
    rows = [row for row in results["rows"] if row["ratio_median"] is not None and row["method"] != PLAIN]

    def values(row: Record) -> tuple[float, float, float]:
        return row["ratio_median"], row["ratio_low"], row["ratio_high"]

    return _dots(rows, values, "Time a step takes beyond the plain AdamW step", _how(results))


def memory(results: Results) -> Figure | None:
    """Draw the peak memory that each contestant adds, a panel for each model; None if none was measured."""
    rows = [row for row in results["rows"] if row["peak_ratio"] is not None and row["method"] != PLAIN]

    def values(row: Record) -> tuple[float, float, float]:
        return (row["peak_ratio"],) * 3

    note = f"Parameters, optimizer and activations of the plain step are 100 %. {results['environment']['device']}."
    return _dots(rows, values, "Peak memory beyond that of the plain AdamW step", note)


def scale(results: Results) -> Figure | None:
    """Draw the time that each contestant adds against size, a panel for each axis; None if there is no row."""
    rows = [row for row in results["rows"] if row["ratio_median"] is not None and row["method"] != PLAIN]
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    if not axes:
        return None
    figure = _figure(2 * style.WIDTH, 6.4 if len(axes) > 2 else 3.6)
    _title(figure, "How the cost of a step grows with the size of the task", _how(results))
    down, across = (len(axes) + 1) // 2, min(len(axes), 2)
    top = max(_reach(row["ratio_median"]) for row in rows)
    for place, axis in enumerate(axes):
        ax = figure.add_subplot(down, across, place + 1)
        _curves(ax, [row for row in rows if row["axis"] == axis], axis, top)
    figure.subplots_adjust(
        left=0.075,
        right=0.985,
        bottom=0.55 / figure.get_figheight(),
        top=1 - 1.05 / figure.get_figheight(),
        hspace=0.42,
    )
    return figure


def _curves(ax: Axes, rows: Sequence[Record], axis: str, top: float) -> None:
    sizes = sorted({row["size"] for row in rows})
    ax.set_xscale("log")
    ax.set_xlim(sizes[0] / 1.15, sizes[-1] * 1.15)
    ax.set_xticks(sizes, [_short(value) for value in sizes])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(min(0.0, *(100 * (row["ratio_median"] - 1) for row in rows)) - 4, top * 1.06)
    _dress(ax, ax.yaxis)
    ax.axhline(0, color=style.FAINT, lw=0.9)
    by_name: dict[str, list[Record]] = {}
    for row in rows:
        by_name.setdefault(words.who(row), []).append(row)
    ends = []
    for name, members in by_name.items():
        members.sort(key=lambda row: row["size"])
        x, y = [row["size"] for row in members], [100 * (row["ratio_median"] - 1) for row in members]
        ax.plot(x, y, **_mark(members[0]), lw=1.5, ls="--" if _light(members[0]) else "-")
        ends.append(End(x[-1], y[-1], name, _colour(members[0])))
    ax.set_title(f"{axis}", loc="left", fontsize=style.TEXT_SIZE, fontweight="bold", color=style.INK)
    _label_log(ax, ends, sizes[-1])


def _label_log(ax: Axes, ends: Sequence[End], last: float) -> None:
    """Write the labels right of the curves; the room is reserved in logarithms."""
    low, _ = ax.get_xlim()
    ax.set_xlim(low, last * (last / low) ** 0.75)
    heights = [0.065 * (ax.get_ylim()[1] - ax.get_ylim()[0])] * len(ends)
    centres = spread([end.y for end in ends], heights, *ax.get_ylim())
    at = last * (last / low) ** 0.06
    for end, centre in zip(ends, centres, strict=True):
        ax.annotate(
            end.text,
            (end.x, end.y),
            (at, centre),
            color=end.colour,
            fontsize=_SMALL,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "lw": 0.6,
                "shrinkA": 1,
                "shrinkB": 2,
                "color": end.colour,
                "relpos": (0, 0.5),
            },
        )


def _dots(
    rows: Sequence[Record], values: Callable[[Record], tuple[float, float, float]], title: str, note: str
) -> Figure | None:
    groups = [(about, list(members)) for about, members in groupby(rows, key=lambda row: row["about"])]
    if not groups:
        return None
    names = list(dict.fromkeys(words.who(row) for row in rows))
    high = _HEAD + 0.35 + _ROW * len(names) + _FOOT
    figure = _figure(2 * style.WIDTH, high)
    _title(figure, title, note)
    left, gap = 1.35 / figure.get_figwidth(), 0.012
    wide = (1 - left - 0.012) / len(groups)
    for place, (about, members) in enumerate(groups):
        ax = figure.add_axes((left + place * wide, _FOOT / high, wide - gap, _ROW * len(names) / high))
        _column(ax, about, members, values, names)
        if place:
            ax.set_yticklabels([])
    return figure


def _column(
    ax: Axes,
    about: str,
    rows: Sequence[Record],
    values: Callable[[Record], tuple[float, float, float]],
    names: Sequence[str],
) -> None:
    """Draw the dots of one model, the first contestant on top, each with its number."""
    reach = max(_reach(values(row)[2]) for row in rows)
    lowest = min(0.0, *(100 * (values(row)[1] - 1) for row in rows))
    ax.set_xlim(lowest - 0.06 * (reach - lowest), reach + 0.62 * (reach - lowest))
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_yticks(range(len(names)), names)
    _dress(ax, ax.xaxis)
    ax.axvline(0, color=style.FAINT, lw=0.9)
    for row in rows:
        y = names.index(words.who(row))
        middle, low, high = (100 * (value - 1) for value in values(row))
        ax.plot([low, high], [y, y], color=_colour(row), lw=2.2, alpha=0.45, solid_capstyle="butt")
        ax.plot([middle], [y], ls="", **_mark(row))
        text = words.percent(values(row)[0]) + (" (!)" if row["flag"] else "")
        ax.annotate(text, (high, y), (7, 0), textcoords="offset points", va="center", fontsize=_SMALL, color=style.INK)
    name, _, rest = about.partition(", ")
    ax.set_title(f"{name}\n{_wrapped(rest)}", loc="left", fontsize=_SMALL, color=style.INK, linespacing=1.2)


def _figure(wide: float, high: float) -> Figure:
    figure = Figure(figsize=(wide, high), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _title(figure: Figure, title: str, note: str) -> None:
    high = figure.get_figheight()
    at = 0.1 / figure.get_figwidth()
    figure.text(at, 1 - 0.1 / high, title, va="top", fontsize=style.TITLE_SIZE, fontweight="bold", color=style.INK)
    figure.text(at, 1 - 0.36 / high, note, va="top", fontsize=_SMALL, color=style.FAINT)


def _how(results: Results) -> str:
    settings, found = results["settings"], results["environment"]
    return (
        f"Median (dot) and quartiles (bar) of {settings['rounds']} interleaved rounds. {found['device']}, "
        f"{found['threads']} threads, torch {found['torch']}."
    )


def _dress(ax: Axes, measured: Any) -> None:
    ax.spines[["top", "right", "left" if measured is ax.xaxis else "top"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(style.FAINT)
    ax.tick_params(colors=style.FAINT, labelsize=_SMALL, length=3)
    if measured is ax.xaxis:
        ax.tick_params(axis="y", colors=style.INK, length=0)
    ax.set_axisbelow(True)
    measured.grid(visible=True, color=style.GRID, lw=0.7)
    measured.set_major_locator(MaxNLocator(4))
    measured.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.0f} %" if value else "0"))


def _mark(row: Record) -> dict[str, Any]:
    light = _light(row)
    return {
        "color": _colour(row),
        "marker": "o",
        "ms": 6.0,
        "mfc": "white" if light else _colour(row),
        "mec": _colour(row),
        "mew": 1.4,
    }


def _light(row: Record) -> bool:
    """Return whether a mark is hollow: of steps far inside, where the same method also has capped ones."""
    return row["method"] in words.METHODS and row["situation"] == "inside"


def _colour(row: Record) -> str:
    return style.FAINT if row["method"] == AGAIN else _COLOURS.get(row["method"], style.INK)


def _reach(ratio: float) -> float:
    return max(100 * (ratio - 1), 1.0)


def _wrapped(text: str, most: int = 30) -> str:
    lines = [""]
    for part in text.split(", "):
        longer = f"{lines[-1]}, {part}" if lines[-1] else part
        lines[-1:] = [longer] if len(longer) <= most or not lines[-1] else [lines[-1] + ",", part]
    return "\n".join(lines)


def _short(value: float) -> str:
    """Write a size shortly.

    Example:
        >>> _short(128), _short(16_384), _short(5_300_000)
        ('128', '16k', '5.3M')
    """
    if value >= 1e6:
        return f"{value / 1e6:.2g}M"
    return f"{value / 1024:.0f}k" if value >= 10_000 else f"{value:.0f}"
