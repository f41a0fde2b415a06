"""The picture of learning-rate schedules: what factor of the base rate each step takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes

from safestep.plots import style
from safestep.plots.endings import capital, say, told
from safestep.plots.endlabels import End, label_ends
from safestep.plots.frame import LEAVES, count_axis, departures, drawable, log_axis, log_frame
from safestep.plots.lines import mark_departures
from safestep.plots.panel import bare_axes, headline, name_axes, shorten

_ROOM = 92.0
"""Points that a label takes right of the curves."""
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

    The axis of the factors is logarithmic, over six decades at most, where they span more than one and a half.

    Args:
        schedules: s by label, each called with one integer t at a time; it returns a number or a tensor of one.
        steps: N, how many steps; at most 1000 of them are drawn, evenly spread.
        first: t of the first step: 0 as torch counts, 2 as the runs of d2l.ai's "Stochastic Gradient Descent".
        ax: where to draw; new axes without.

    Returns:
        The axes.

    Raises:
        ValueError: if ``steps`` is negative.

    Example:
        >>> axes = schedule_curves({"constant": lambda t: 1.0, "inverse": lambda t: 1 / (1 + 0.1 * t)}, 50, first=2)
        >>> " ".join(axes.get_title(loc="left").split())
        'Left of the rate at step 50: 1 (constant), 0.164 (inverse)'
    """
    if steps < 0:
        raise ValueError(f"steps is {steps}; expected 0 or more")
    ax = bare_axes(ax)
    drawn = sorted({1 + round(place * (steps - 1) / (_POINTS - 1)) for place in range(_POINTS)} if steps else set())
    curves = {str(label): [float(s(first + k - 1)) for k in drawn] for label, s in schedules.items()} if steps else {}
    high, logarithmic = _factor_axis(ax, [value for curve in curves.values() for value in curve])
    last, ends, left = count_axis(ax, drawn), [], False
    for (label, curve), colour in zip(curves.items(), style.palette(curves).values(), strict=True):
        # A dot where a line alone would hardly be seen; nan is a gap, inf leaves the frame.
        shown = [value if math.isnan(value) else drawable([value], high)[0] for value in curve]
        ax.plot(drawn, shown, color=colour, lw=1.8, marker="o" if len(drawn) <= 12 else "", ms=4, label=label)
        seen = [(k, value) for k, value in zip(drawn, curve, strict=True) if not math.isnan(value)]
        gone = [seen[place][0] for place in departures([value for _, value in seen], high)]
        mark_departures(ax, gone, colour)
        left = left or bool(gone)
        if seen:
            place = next((place for place, (k, _) in enumerate(seen) if k in gone[:1]), len(seen) - 1)
            ends.append(End(*seen[place], shorten(label, _ROOM, style.LABEL_SIZE, lines=2), colour))
    label_ends(ax, ends, last)
    name_axes(ax, "step", "factor of the rate")
    scale, note = (", log scale" if logarithmic else ""), (f" {LEAVES} beyond the frame." if left else "")
    headline(ax, _title(curves, steps), f"η over the base rate{scale}. Step k uses t{_counter(first)}.{note}")
    return ax


def _factor_axis(ax: Axes, factors: Sequence[float]) -> tuple[float, bool]:
    """Scale y for the factors; return where the frame ends above, and whether it is logarithmic."""
    known = [value for value in factors if abs(value) <= _LARGEST] or [0.0, 1.0]
    top = max(known)
    positive = [value for value in known if value > 0]
    if positive and min(positive) * _WIDE < top and min(known) >= 0:
        low, high = log_frame(value for value in positive if value >= top * _LEAST)
        log_axis(ax, low, high)
        return high, True
    low, high = min(0.0, *known), max(0.0, top)
    room = 0.06 * ((high - low) or 1.0)
    ax.set_yscale("linear")
    ax.set_ylim(low - (room if low < 0 else 0.0), high + room)
    return high + room, False


def _counter(first: int) -> str:
    """Return what follows t in "t = first + k − 1"."""
    return f" = k{f' {chr(43) if first > 1 else chr(8722)} {abs(first - 1)}' if first != 1 else ''}"


def _title(curves: Mapping[str, Sequence[float]], steps: int) -> str:
    if not curves:
        return "No steps yet" if not steps else "No schedule yet"
    ends = {shorten(label, 2 * _ROOM, style.TITLE_SIZE): curve[-1] for label, curve in curves.items()}
    if len(ends) == 1:
        ((name, end),) = ends.items()
        has = f"has {say(end)}" if math.isfinite(end) else "has no finite factor"
        return capital(f"{name} {has} of the rate at step {steps}")
    what = f"of the rate at step {steps}"
    return told(ends, f"Left {what}", f"Least {what}:", "most:", "is not finite")
