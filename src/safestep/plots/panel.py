"""A panel: axes with a headline above them, that says what is seen and explains it, wrapped to their width."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from safestep._torch.extras import need
from safestep.plots.style import DPI, FAINT, GRID, HEIGHT, INK, TEXT_SIZE, TITLE_SIZE, WIDTH

_BOTTOM, _EDGE = 40.0, 8.0
"""Points below the axes of a panel, for ticks and what they count, and between its text and the edge of its cell."""
_LEADING = 1.25


class Panel(Axes):
    """Axes that own a cell of a figure: the headline takes what it needs of it, the picture the rest.

    Attributes:
        cell: left, bottom, width and height, as fractions of the figure.
        borders: points left, right and above the axes, for tick labels, other labels, and the headline.
    """

    cell: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    borders: tuple[float, float, float] = (57.0, _EDGE, 0.0)

    def fit(self) -> None:
        """Fill the cell but for the borders."""
        wide, high = (side / self.figure.dpi * 72 for side in (self.figure.bbox.width, self.figure.bbox.height))
        x, y, width, height = self.cell
        left, right, above = self.borders
        room = (width * wide - left - right, height * high - _BOTTOM - above)
        self.set_position((x + left / wide, y + _BOTTOM / high, room[0] / wide, room[1] / high))


def single_figure() -> Figure:
    """Return an empty figure for one panel, outside pyplot and fine enough to be saved."""
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def panel(figure: Figure, cell: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)) -> Panel:
    """Add a panel to a figure, in the cell with this left, bottom, width and height."""
    ax = Panel(figure, (0.0, 0.0, 1.0, 1.0))
    figure.add_axes(ax)
    ax.cell = cell
    ax.fit()
    return ax


def bare_axes(ax: Axes | None = None) -> Axes:
    """Return the axes to draw on, cleared of ornament: those given, or a panel in a new pyplot figure."""
    if ax is None:
        ax = panel(need("matplotlib.pyplot", "plots").figure(figsize=(WIDTH, HEIGHT), dpi=110))
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FAINT)
    ax.tick_params(colors=FAINT, labelsize=TEXT_SIZE)
    ax.set_axisbelow(True)
    ax.grid(axis="y", color=GRID, lw=0.7)
    return ax


def name_axes(ax: Axes, x: str, y: str) -> None:
    """Write what the axes measure."""
    ax.set_xlabel(x, fontsize=TEXT_SIZE, color=FAINT, labelpad=2)
    ax.set_ylabel(y, fontsize=TEXT_SIZE, color=FAINT, labelpad=1)


def text_room(ax: Axes) -> tuple[float, float]:
    """Return how many points left of the axes the text above them begins, and how wide it may be."""
    wide = ax.get_window_extent().width * 72 / ax.figure.dpi
    if not isinstance(ax, Panel):
        return 0.0, wide
    left, right, _ = ax.borders
    return left - _EDGE, wide + left + right - 2 * _EDGE


def headline(ax: Axes, title: str, subtitle: str, *, key: float = 0.0) -> None:
    """Write what is seen (bold) and what explains it above the axes.

    In a panel the text begins at the edge of the cell and the axes shrink to make room; above other axes it begins
    where they do, and the room is the caller's to leave. ``key`` points between text and axes stay free.
    """
    frame, point = ax.get_window_extent(), ax.figure.dpi / 72
    indent, room = text_room(ax)
    head, sub = wrap(title, room, TITLE_SIZE, "bold"), wrap(subtitle, room, TEXT_SIZE)
    below = len(sub) * TEXT_SIZE * _LEADING + 15 + key
    ax.set_title(
        "\n".join(head),
        loc="left",
        x=-indent * point / frame.width,
        pad=below,
        fontsize=TITLE_SIZE,
        fontweight="bold",
        color=INK,
        linespacing=_LEADING * 0.93,
    )
    ax.annotate(
        "\n".join(sub),
        (0, 1),
        (-indent, 10 + key),
        xycoords="axes fraction",
        textcoords="offset points",
        va="bottom",
        ha="left",
        fontsize=TEXT_SIZE,
        color=FAINT,
        linespacing=_LEADING * 0.93,
        gid="subtitle",
    )
    if isinstance(ax, Panel):
        ax.borders = (*ax.borders[:2], below + len(head) * TITLE_SIZE * _LEADING + _EDGE)
        ax.fit()


def level(panels: Iterable[Axes]) -> None:
    """Give panels of one row the same height, that of the lowest."""
    row = list(panels)
    top = min(ax.get_position().y1 for ax in row)
    for ax in row:
        place = ax.get_position()
        ax.set_position((place.x0, place.y0, place.width, top - place.y0))


def wrap(text: str, room: float, size: float, weight: str = "normal") -> list[str]:
    """Break a text into as few lines of at most ``room`` points as it takes, of about equal length.

    A longer word stands alone; "r = 1", "5 %" and a mark with its meaning stay together.
    """
    for mark in (" = ", " %", "▲ ", "× "):
        text = text.replace(mark, mark.replace(" ", "\N{NO-BREAK SPACE}"))
    lines = _fill(text, room, size, weight)
    for percent in range(95, 45, -5):
        tighter = _fill(text, room * percent / 100, size, weight)
        if len(tighter) > len(lines) or max(text_width(line, size, weight) for line in tighter) > room:
            break
        lines = tighter
    return lines


def _fill(text: str, room: float, size: float, weight: str) -> list[str]:
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size, weight) > room:
            lines.append(word)
        else:
            lines[-1:] = [longer]
    return lines


def shorten(text: str, room: float, size: float, *, lines: int = 1) -> str:
    """Break a label into at most so many lines of at most ``room`` points; an ellipsis stands for what has no room.

    Example:
        >>> shorten("inverse square root", 90, 10, lines=2).splitlines(), shorten("inverse square root", 70, 10)
        (['inverse', 'square root'], 'inverse squ…')
    """
    found = wrap(text, room, size)
    kept = [*found[: lines - 1], " ".join(found[lines - 1 :])]
    return "\n".join(_cut(line, room, size) for line in kept if line)


def _cut(text: str, room: float, size: float) -> str:
    cut = text
    while cut and text_width(cut, size) > room:
        cut = f"{cut.rstrip('…')[:-1].rstrip()}…" if len(cut) > 1 else ""
    return cut


@lru_cache(maxsize=1024)
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Return how many points a line of text is wide."""
    font = FontProperties(family="DejaVu Sans", weight=weight, size=size)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])
