"""The picture of learning-rate schedules: what factor of the base rate each step takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes

from safestep.plots import style
from safestep.plots.frame import count_axis, log_axis, log_frame
from safestep.plots.lines import draw_curve
from safestep.plots.panel import bare_axes, legend, name_axes

_WIDE = 30.0
"""Factors that span more than this ratio are drawn on a logarithmic axis."""
_LEAST = 1e-6
"""A logarithmic axis ends at this share of the largest factor that it shows."""
_LARGEST = 1e6
"""Larger factors leave the frame."""
_POINTS = 1000
"""So many steps are drawn at most."""


def schedule_curves(
    schedules: Mapping[str, Callable[[int], float]], steps: int, *, first: int = 0, ax: Axes | None = None
) -> Axes:
    """Draw the factor s(t) of the base rate over the steps k = 1, 2, …, of which step k uses t = first + k − 1.

    The axis of the factors is logarithmic, over six decades at most, where they span more than one and a half. A
    factor that is not finite leaves the frame.

    Args:
        schedules: s by label, each called with one integer t at a time; it returns a number or a tensor of one.
        steps: N, how many steps; at most 1000 of them are drawn, evenly spread.
        first: t of the first step: 0 as torch counts, 2 as the runs of d2l.ai's "Stochastic Gradient Descent".
        ax: where to draw; new axes without.

    Raises:
        ValueError: if ``steps`` is negative.

    Example:
        >>> axes = schedule_curves({"constant": lambda t: 1.0, "inverse": lambda t: 1 / (1 + 0.1 * t)}, 50, first=2)
        >>> axes.get_xlabel()
        'step k, with t = k + 1'
    """
    if steps < 0:
        raise ValueError(f"steps is {steps}; expected 0 or more")
    ax = bare_axes(ax)
    drawn = sorted({1 + round(place * (steps - 1) / (_POINTS - 1)) for place in range(_POINTS)} if steps else set())
    curves = {str(label): [float(s(first + k - 1)) for k in drawn] for label, s in schedules.items()}
    high = _factor_axis(ax, [value for curve in curves.values() for value in curve])
    count_axis(ax, drawn)
    for (label, curve), colour in zip(curves.items(), style.palette(curves).values(), strict=True):
        draw_curve(ax, drawn, curve, label=label, color=colour, high=high, lw=1.8)
    counter = "k" if first == 1 else f"k {'+' if first > 1 else '−'} {abs(first - 1)}"
    name_axes(ax, "Learning-rate schedules", f"step k, with t = {counter}", "factor of the rate")
    legend(ax)
    return ax


def _factor_axis(ax: Axes, factors: Sequence[float]) -> float:
    """Scale y for the factors; return where the frame ends above."""
    known = [value for value in factors if abs(value) <= _LARGEST] or [0.0, 1.0]
    top = max(known)
    positive = [value for value in known if value > 0]
    if positive and min(positive) * _WIDE < top and min(known) >= 0:
        low, high = log_frame(value for value in positive if value >= top * _LEAST)
        log_axis(ax, low, high)
        return high
    low, high = min(0.0, *known), max(0.0, top)
    ax.set_yscale("linear")
    room = 0.06 * ((high - low) or 1.0)
    ax.set_ylim(low - (room if low < 0 else 0.0), high + room)
    return high + room
