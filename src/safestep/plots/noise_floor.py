"""The picture of the noise floor: the loss that a constant rate settles at, against the rate, for each batch size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from safestep.plots import style
from safestep.plots.frame import log_axis, log_frame, usable
from safestep.plots.lines import mark_edge
from safestep.plots.panel import bare_axes, legend, name_axes

_BARS = 4.0
"""Standard errors that an error bar shows on either side."""
_POINTS = 200
_MARKS = 0.08
"""The share of the height that marks on the upper edge take."""


@dataclass(frozen=True)
class Floor:
    """Stationary E f of one batch size at several learning rates; columns may be tensors, and are kept as lists.

    Attributes:
        batch: the batch size.
        rates: the learning rates, rising, positive.
        measured: the mean of f where it has settled; not finite where it has not.
        errors: its standard error.
        law: the exact stationary E f, inf at rates beyond the limit of stability, nan where unknown.

    Raises:
        ValueError: if the columns are not of one length, or a rate is not positive.
    """

    batch: int
    rates: Sequence[float]
    measured: Sequence[float]
    errors: Sequence[float]
    law: Sequence[float]

    def __post_init__(self) -> None:
        columns = {"rates": self.rates, "measured": self.measured, "errors": self.errors, "law": self.law}
        for name, column in columns.items():
            object.__setattr__(self, name, [float(value) for value in column])
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of batch {self.batch} have the lengths {lengths}; expected one length")
        if not all(0 < rate < math.inf for rate in self.rates):
            raise ValueError(f"the rates of batch {self.batch} are {list(self.rates)}; expected positive numbers")


def noise_floor(
    floors: Sequence[Floor], *, law: Callable[[float, int], float] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the stationary E f against the learning rate η, both on logarithmic axes, one curve for each batch size.

    Points with error bars of four standard errors are measured, lines are the law. Rates at which the law has no
    floor are shaded, and marked on the upper edge.

    Args:
        floors: see `Floor`.
        law: E f as a function of rate and batch size, for a smooth line; without, the line joins the floors' own.
        ax: where to draw; new axes without.

    Example:
        >>> measured, errors, law = [0.0152, 0.18, math.inf], [1e-4, 3e-3, math.nan], [0.0152, 0.181, math.inf]
        >>> noise_floor([Floor(1, [0.01, 0.1, 0.6], measured, errors, law)]).get_xscale()
        'log'
    """
    ax = bare_axes(ax)
    floors = [floor for floor in floors if floor.rates]
    rates = sorted({rate for floor in floors for rate in floor.rates})
    left, right = (rates[0] / 1.25, rates[-1] * 1.25) if rates else (0.01, 1.0)
    settled = [_settled(floor) for floor in floors]
    seen = [value + bar * error for rows in settled for _, value, error in rows for bar in (0.0, _BARS)]
    exact = [pair for floor in floors for pair in zip(floor.rates, floor.law, strict=True)]
    # A line between the rates may go far up towards the limit of stability.
    lowest, highest = log_frame([*seen, *usable(value for _, value in exact)])
    curves = [_curve(floor, law) for floor in floors]
    unstable = sorted({rate for rate, value in exact if value == math.inf})
    if unstable:  # room for the marks on the upper edge, above the highest floor
        highest *= (highest / lowest) ** _MARKS
    log_axis(ax, left, right, along="x")
    log_axis(ax, lowest, highest)
    stable = [rate for rate, value in exact if value < math.inf]
    if unstable and max(stable, default=0.0) < unstable[0]:
        limit = _limit(max(stable, default=left), unstable[0], floors[0].batch, law if stable else None)
        ax.axvspan(limit, right, color=style.COLOURS["fixed"], alpha=0.1, lw=0, zorder=0, label="beyond the limit")
    colours = style.palette(str(floor.batch) for floor in floors)
    for floor, rows, curve in zip(floors, settled, curves, strict=True):
        colour = colours[str(floor.batch)]
        ax.plot([rate for rate, _ in curve], [f for _, f in curve], color=colour, lw=1.5, zorder=3)
        ax.errorbar(
            [rate for rate, _, _ in rows],
            [value for _, value, _ in rows],
            [_BARS * error for _, _, error in rows],
            fmt="o",
            ms=5.5,
            color=colour,
            mec="white",
            mew=0.7,
            elinewidth=1.3,
            capsize=2.5,
            zorder=4,
            label=f"batch {floor.batch}",
        )
    ax.plot([], [], color=style.FAINT, label="the law")
    ax.plot([], [], "|", color=style.FAINT, ms=10, mew=1.3, label=f"{_BARS:.0f} standard errors")
    mark_edge(ax, unstable, style.FAINT, meaning="no floor")
    name_axes(ax, "Noise floor", "learning rate η", "stationary E f")
    legend(ax)
    return ax


def _limit(low: float, high: float, batch: int, law: Callable[[float, int], float] | None) -> float:
    """Return where floors end, between a rate with one and a rate without, as near as the law tells it."""
    for _ in range(60 if law is not None else 0):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if law is not None and law(middle, batch) < math.inf else (low, middle)
    return high if law is not None else math.sqrt(low * high)


def _curve(floor: Floor, law: Callable[[float, int], float] | None) -> list[tuple[float, float]]:
    """Return the law over the rates, as far as there is a floor."""
    points = list(zip(floor.rates, floor.law, strict=True))
    if law is not None:
        first, last = floor.rates[0], floor.rates[-1]
        rates = [first * (last / first) ** (place / (_POINTS - 1)) for place in range(_POINTS)]
        points = [(rate, float(law(rate, floor.batch))) for rate in rates]
    return [(rate, value) for rate, value in points if usable([value])]


def _settled(floor: Floor) -> list[tuple[float, float, float]]:
    """Return rate, measured floor and its error where there is one."""
    rows = zip(floor.rates, floor.measured, floor.errors, floor.law, strict=True)
    return [
        (rate, value, error if error >= 0 and math.isfinite(error) else 0.0)
        for rate, value, error, law in rows
        if usable([value]) and law != math.inf
    ]
