"""A key above the axes: which colour stands for what, in as few rows as the labels take."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from safestep.plots import style
from safestep.plots.panel import shorten, text_room, text_width

_ROW, _HANDLE, _APART = 1.35, 18.0, 12.0
"""Height of a row in font sizes; points of a colour with its gap to the label, and between two columns."""
_ROWS, _MOST = 6, 40
"""So many rows a key has at most, and so many labels are tried in them."""


def colour_key(ax: Axes, colours: Mapping[str, str]) -> float:
    """Write every label beside a dot of its colour, right above the axes.

    Args:
        ax: where; in a panel the key begins at the edge of its cell.
        colours: by label. A label that is too long for a row ends in an ellipsis; of more labels than fit in six rows
            the first are shown, and how many more there are.

    Returns:
        How many points above the axes the key takes, for `panel.headline`; 0 for fewer than two labels.
    """
    if len(colours) < 2:
        return 0.0
    indent, room = text_room(ax)
    size = style.LABEL_SIZE
    names, columns = _fitting(list(colours), room, size)
    shown = list(colours.values())[: len(names)]
    if len(names) < len(colours):
        shown[-1] = "none"
    ax.legend(
        handles=[Line2D([], [], color=colour, lw=2.2, marker="o", ms=5) for colour in shown],
        labels=names,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        bbox_transform=ax.transAxes + ScaledTranslation(-indent / 72, 5 / 72, ax.figure.dpi_scale_trans),
        ncols=columns,
        frameon=False,
        fontsize=size,
        labelcolor=style.INK,
        handlelength=1.2,
        handletextpad=0.5,
        columnspacing=_APART / size,
        labelspacing=_ROW - 1.164,  # a line of the font is 1.164 sizes high
        borderpad=0.0,
        borderaxespad=0.0,
    )
    return -(-len(names) // columns) * _ROW * size


def _fitting(labels: list[str], room: float, size: float) -> tuple[list[str], int]:
    """Return what is written, the last of it how many labels are left out, if any are, and in how many columns."""
    names = [shorten(label, room - _HANDLE, size) for label in labels[:_MOST]]
    for kept in range(len(names), 0, -1):
        left = len(labels) - kept
        written = [*names[:kept], f"and {left} more"] if left else names
        widths = [_HANDLE + text_width(name, size) for name in written]
        columns = next(count for count in range(len(written), 0, -1) if count == 1 or _wide(widths, count) <= room)
        if -(-len(written) // columns) <= _ROWS:
            break
    return written, columns


def _wide(widths: list[float], columns: int) -> float:
    """Return the width of a key that is filled column by column, as matplotlib fills it."""
    rows, longer = divmod(len(widths), columns)
    total, first = -_APART, 0
    for column in range(columns):
        last = first + rows + (column < longer)
        total += max(widths[first:last]) + _APART
        first = last
    return total
