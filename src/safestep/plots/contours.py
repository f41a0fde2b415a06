"""Contours of a function of two variables, at levels that show bowls, narrow valleys and saddles alike."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor

from safestep.plots.plane import Limits

Value = Callable[[Tensor], Tensor]
"""f: points of shape ``(..., 2)`` to values of shape ``(...)``."""

_GRID = 201
_LOWEST = (0.0005, 0.002, 0.006, 0.015, 0.035, 0.07)
_SHARES = (0.12, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_SHADES, _LINE = LinearSegmentedColormap.from_list("depth", ["#c6d0da", "#f5f7f9"]), "#a9b6c3"
_LARGEST = 1e200
"""Values beyond it are drawn as it: their differences must not overflow."""


def draw_contours(ax: Axes, value: Value, limits: Limits) -> bool:
    """Draw contours of f over the frame, darker where f is lower.

    A level is the value below which f lies on a given share of the frame, so the picture is the same for every
    rising function of f: Rosenbrock's eight decades need no more levels than a quadratic. Where the lowest value is
    inside the frame, levels at shares down to 0.05 % show the bottom of a valley.

    Args:
        ax: axes whose limits are set.
        value: f; see `values_on`.
        limits: of the frame.

    Returns:
        Whether f is finite in the whole frame.
    """
    x, y, values = values_on(value, limits)
    chosen = levels(values)
    known = torch.where(values.isfinite(), values.clamp(-_LARGEST, _LARGEST), math.nan).numpy()
    if len(chosen) > 1:
        shades = _SHADES([place / len(chosen) for place in range(len(chosen) + 1)])
        fills = ax.contourf(x, y, known, chosen, colors=list(map(tuple, shades)), extend="both", zorder=0.5)
        fills.set_rasterized(True)
    if chosen:
        ax.contour(x, y, known, chosen, colors=_LINE, linewidths=0.5, linestyles="solid", zorder=0.8)
    return bool(values.isfinite().all())


def values_on(value: Value, limits: Limits) -> tuple[list[float], list[float], Tensor]:
    """Return a grid over the frame, and f on it.

    Args:
        value: f; called once, with points of shape ``(rows, columns, 2)``, float64, without gradients.
        limits: of the frame.

    Returns:
        x₁ of the columns, x₂ of the rows, values of shape ``(rows, columns)``.

    Raises:
        ValueError: if f does not return one value for each point.

    Example:
        >>> x, y, values = values_on(lambda point: point.square().sum(-1), ((-2.0, 2.0), (0.0, 1.0)))
        >>> x[0], y[-1], float(values[-1, 0])
        (-2.0, 1.0, 5.0)
    """
    x, y = (torch.linspace(low, high, _GRID, dtype=torch.float64) for low, high in limits)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    with torch.no_grad():
        values = torch.as_tensor(value(torch.stack([columns, rows], -1)))
    if values.shape != rows.shape:
        raise ValueError(
            f"for points of the shape {(*rows.shape, 2)} the function returned values of the shape "
            f"{tuple(values.shape)}; expected {tuple(rows.shape)}: one value for each point, f(x[..., 0], x[..., 1])"
        )
    return x.tolist(), y.tolist(), values.detach().to("cpu", torch.float64)


def levels(values: Tensor) -> list[float]:
    """Return the levels of contours, rising, for f on a grid; none where f is constant or nowhere finite.

    Example:
        >>> levels(torch.full((3, 3), 2.0, dtype=torch.float64))
        []
    """
    finite = values.isfinite()
    known = values[finite].clamp(-_LARGEST, _LARGEST)
    if not len(known):
        return []
    row, column = divmod(int(torch.where(finite, values, math.inf).argmin()), values.shape[1])
    inner = 0 < row < values.shape[0] - 1 and 0 < column < values.shape[1] - 1
    shares = torch.tensor((*(_LOWEST if inner else ()), *_SHARES), dtype=values.dtype)
    found = known.quantile(shares).unique()
    return [float(level) for level in found[(found > known.min()) & (found < known.max())]]
