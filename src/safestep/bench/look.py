"""What the pictures of a benchmark have in common: colours by method, hollow marks inside, a title and its note."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from safestep.bench.contestants import AGAIN, METHODS
from safestep.bench.row_text import Record
from safestep.plots import style

SMALL = 9.0
"""Points of all text but titles."""
_COLOURS: Mapping[str, str] = {
    "exact": style.COLOURS["fixed"],
    "probe": style.COLOURS["cap"],
    "tiered": style.COLOURS["pin"],
    "torch.func.jvp": style.OTHER,
    AGAIN: style.FAINT,
}

Results = Mapping[str, Any]
"""What results.json holds."""


def colour(row: Record) -> str:
    """Return the colour of a row's method."""
    return _COLOURS.get(row["method"], style.INK)


def hollow(row: Record) -> bool:
    """Return whether a mark is hollow: of steps far inside, where the same method also has capped ones."""
    return row["method"] in METHODS and row["situation"] == "inside"


def mark(row: Record) -> dict[str, Any]:
    """Return how to draw the mark of a row."""
    own = colour(row)
    return {"color": own, "marker": "o", "ms": 6.0, "mfc": "white" if hollow(row) else own, "mec": own, "mew": 1.4}


def blank(high: float) -> Figure:
    """Return an empty figure of two panels' width and this height in inches."""
    figure = Figure(figsize=(2 * style.WIDTH, high), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def title(figure: Figure, text: str, note: str) -> None:
    """Write what is seen and how it was measured above everything else."""
    left, high = 0.1 / figure.get_figwidth(), figure.get_figheight()
    figure.text(left, 1 - 0.1 / high, text, va="top", fontsize=style.TITLE_SIZE, fontweight="bold", color=style.INK)
    figure.text(left, 1 - 0.36 / high, note, va="top", fontsize=SMALL, color=style.FAINT)


def how(results: Results) -> str:
    """Return how the times were measured."""
    rounds, found = results["settings"]["rounds"], results["environment"]
    threads = f"{found['threads']} thread{'s' * (found['threads'] != 1)}"
    return f"Median and quartiles of {rounds} interleaved rounds. {found['device']}, {threads}, torch {found['torch']}."


def dress(ax: Axes, measured: Axis, ticks: int) -> None:
    """Give axes a quiet frame, and percents along the axis that something is measured on."""
    flat = measured is ax.xaxis
    ax.spines[["top", "right", *(["left"] if flat else [])]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(style.FAINT)
    ax.tick_params(colors=style.FAINT, labelsize=SMALL, length=3)
    if flat:
        ax.tick_params(axis="y", colors=style.INK, length=0)
    ax.set_axisbelow(True)
    measured.grid(visible=True, color=style.GRID, lw=0.7)
    measured.set_major_locator(MaxNLocator(ticks))
    measured.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.0f} %" if value else "0"))
