"""The frame of a picture: axis limits that show what matters when a curve blows up, and plainly written ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

_LEAST, _MOST = 1e-300, 1e300
"""What a logarithmic axis can show, with room below and above."""


def usable(values: Iterable[float]) -> list[float]:
    """Return the values that a logarithmic axis can show, with room above and below them."""
    return [value for value in values if _LEAST < value < _MOST]


def log_frame(values: Iterable[float], *, ceiling: float = math.inf, keep: Iterable[float] = ()) -> tuple[float, float]:
    """Choose the limits of a logarithmic axis.

    Args:
        values: what should be seen; what a logarithmic axis cannot show is ignored.
        ceiling: the upper limit is not above it, except for ``keep``, or where the axis could not show it.
        keep: values that must be inside.

    Returns:
        Lower and upper limit: positive, finite, at least one decade and at most twelve apart.

    Example:
        >>> low, high = log_frame([0.5, 2.0, 1e30, float("nan")], ceiling=1e3)
        >>> round(low, 2), high
        (0.33, 1000.0)
    """
    kept, ceiling = usable(keep), max(ceiling, _LEAST)
    shown = [min(value, ceiling) for value in usable(values)] + kept
    low, high = (min(shown), max(shown)) if shown else (0.1, 1.0)
    high = min(high * 1.5, max([ceiling, *(value * 1.5 for value in kept)]))
    low = max(low / 1.5, high * 1e-12)
    if high / low < 10:
        middle = math.sqrt(high) * math.sqrt(low)  # the product itself may be 0 or inf
        low, high = middle / math.sqrt(10), middle * math.sqrt(10)
    return low, high


def log_axis(ax: Axes, low: float, high: float, *, along: Literal["x", "y"] = "y") -> None:
    """Make y (or x) logarithmic from ``low`` to ``high``, with few and plainly written ticks."""
    (ax.set_xscale if along == "x" else ax.set_yscale)("log", nonpositive="clip")
    ax.set(**{f"{along}lim": (low, high)})
    axis, decades = (ax.xaxis if along == "x" else ax.yaxis), math.log10(high / low)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.6 else (1,), numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def count_axis(ax: Axes, counts: Sequence[int]) -> None:
    """Make x run over epochs or steps, with whole numbers as ticks."""
    first, last = (min(counts), max(counts)) if counts else (0, 0)
    room = 0.02 * (last - first) or 0.5
    ax.set_xlim(first - room, last + room)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1) if counts else NullLocator())


def plain_number(value: float) -> str:
    """Write a number shortly: 0.05, 18, 2·10³⁰.

    Example:
        >>> [plain_number(value) for value in (0.05, 18.2871, 1000.0, 1.85e30, 2e-7, float("inf"))]
        ['0.05', '18.3', '1000', '2·10³⁰', '2·10⁻⁷', '∞']
    """
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    digits, exponent = f"{value:.0e}".split("e")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if digits == "1" else f"{digits}·{power}"
