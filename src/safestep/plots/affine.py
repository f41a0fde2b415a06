"""Pictures of a regression's data: every answer against every input, and how both are distributed."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from safestep.plots import style
from safestep.plots.panel import bare_axes, name_figure, single_figure

_CELL = (2.3, 1.9)
"""Inches of a cell of the grid."""
_BINS = 24
_BLUE, _ORANGE = style.COLOURS["cap"], style.COLOURS["fixed"]


def affine_scatter(x: Tensor, y: Tensor, matrix: Tensor, bias: Tensor) -> Figure:
    """Draw each component of y (rows) against each of x (columns), with the line of the weight between the two.

    The line goes through what the weights answer with the other inputs at their mean.

    Args:
        x: inputs, shape ``(samples, inputs)``.
        y: answers, shape ``(samples, outputs)``.
        matrix: the weights that answer them, shape ``(outputs, inputs)``.
        bias: the bias that goes with them, shape ``(outputs,)``.

    Returns:
        A figure outside pyplot: save it, or, where `%matplotlib inline` is on, show it as the last line of a cell.

    Example:
        >>> import torch
        >>> figure = affine_scatter(torch.rand(9, 3), torch.rand(9, 2), torch.eye(2, 3), torch.zeros(2))
        >>> len(figure.axes)
        6
    """
    outputs, inputs = matrix.shape
    figure = _figure(outputs, inputs, f"Each answer against each input, {len(x)} samples")
    means = x.mean(0)
    for place, ax in enumerate(figure.axes):
        row, column = divmod(place, inputs)
        weight = float(matrix[row, column])
        at = x[:, column]
        ends = [float(at.min()), float(at.max())]
        rest = float(bias[row] + matrix[row] @ means - weight * means[column])
        ax.plot(at, y[:, row], "o", ms=1.8, color=_BLUE, alpha=0.35, mew=0, rasterized=True)
        ax.plot(ends, [rest + weight * end for end in ends], color=_ORANGE, lw=1.7)
        names = f"x{_below(column + 1)}" if row == outputs - 1 else "", f"y{_below(row + 1)}" if column == 0 else ""
        _name(ax, f"weight {_number(weight)}", _ORANGE, *names)
    return figure


def affine_histogram(x: Tensor, y: Tensor) -> Figure:
    """Draw how each component of x (top) and of y (bottom) is distributed, with a dashed line at its mean.

    Args:
        x: inputs, shape ``(samples, inputs)``.
        y: answers, shape ``(samples, outputs)``.

    Returns:
        A figure outside pyplot: save it, or, where `%matplotlib inline` is on, show it as the last line of a cell.

    Example:
        >>> import torch
        >>> figure = affine_histogram(torch.rand(9, 3), torch.rand(9, 2))
        >>> [ax.get_xlabel() for ax in figure.axes]
        ['x₁', 'x₂', 'x₃', 'y₁', 'y₂']
    """
    columns = max(x.shape[1], y.shape[1])
    figure = _figure(2, columns, f"Inputs and answers, {len(x)} samples")
    for place, ax in enumerate(figure.axes):
        row, column = divmod(place, columns)
        data, letter, colour = ((x, "x", _BLUE), (y, "y", style.COLOURS["pin"]))[row]
        if column >= data.shape[1]:
            ax.remove()
            continue
        values = data[:, column]
        ax.hist(values.tolist(), bins=_BINS, color=colour, alpha=0.85)
        ax.axvline(float(values.mean()), color=style.INK, lw=1.0, ls=(0, (5, 3)))
        note, y_label = f"mean {_number(float(values.mean()))}", "samples" if column == 0 else ""
        _name(ax, note, style.INK, f"{letter}{_below(column + 1)}", y_label)
    return figure


def _figure(rows: int, columns: int, title: str) -> Figure:
    figure = single_figure(max(columns * _CELL[0], 4.6), rows * _CELL[1] + 0.4, dpi=style.DPI / 2)
    name_figure(figure, title)
    for ax in figure.subplots(rows, columns, squeeze=False).flat:
        bare_axes(ax)
        ax.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    return figure


def _name(ax: Axes, note: str, colour: str, x: str, y: str) -> None:
    ax.set_title(note, fontsize=style.TEXT_SIZE, color=colour, loc="right", pad=3)
    ax.set_xlabel(x, fontsize=style.TEXT_SIZE, color=style.INK)
    ax.set_ylabel(y, fontsize=style.TEXT_SIZE, color=style.INK)


def _below(number: int) -> str:
    """Return a number as an index below the line."""
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
