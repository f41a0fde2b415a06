"""The picture of the noise floor: the loss that a constant rate settles at, against the rate, for each batch size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from safestep.plots import style
from safestep.plots.endings import say
from safestep.plots.endlabels import End, label_ends
from safestep.plots.frame import LEAVES, log_axis, log_frame, usable
from safestep.plots.lines import mark_departures
from safestep.plots.panel import bare_axes, headline, name_axes

_BARS = 4.0
"""Standard errors that an error bar shows on either side, and that a floor may be off its law by chance."""
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
        for name in ("rates", "measured", "errors", "law"):
            object.__setattr__(self, name, [float(value) for value in getattr(self, name)])
        lengths = {name: len(getattr(self, name)) for name in ("rates", "measured", "errors", "law")}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of batch {self.batch} have the lengths {lengths}; expected one length")
        if not all(0 < rate < math.inf for rate in self.rates):
            raise ValueError(f"the rates of batch {self.batch} are {list(self.rates)}; expected positive numbers")

    @property
    def off(self) -> list[tuple[float, float]]:
        """How many standard errors measured floor and law are apart, with the rate, where there is a floor."""
        rows = zip(self.rates, self.measured, self.errors, self.law, strict=True)
        return [
            (abs(seen - law) / error if math.isfinite(seen) and error > 0 else math.inf if seen != law else 0.0, rate)
            for rate, seen, error, law in rows
            if math.isfinite(law)
        ]


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

    Returns:
        The axes.

    Example:
        >>> measured, errors, law = [0.0152, 0.18, math.inf], [1e-4, 3e-3, math.nan], [0.0152, 0.181, math.inf]
        >>> floor = Floor(1, [0.01, 0.1, 0.6], measured, errors, law)
        >>> print(*noise_floor([floor]).get_title(loc="left").split())
        Every floor lies within 0.333 standard errors of the law; none at η = 0.6
    """
    ax = bare_axes(ax)
    floors = [floor for floor in floors if floor.rates]
    rates = sorted({rate for floor in floors for rate in floor.rates})
    left, right = (rates[0] / 1.25, rates[-1] * 1.25) if rates else (0.01, 1.0)
    smooth = {id(floor): _curve(floor, law) for floor in floors}
    settled = [_settled(floor) for floor in floors]
    seen = [value + bar * error for rows in settled for _, value, error in rows for bar in (0.0, _BARS)]
    # A line between the rates may go far up towards the limit of stability.
    lowest, highest = log_frame([*seen, *usable(value for floor in floors for value in floor.law)])
    unstable = sorted(
        {rate for floor in floors for rate, value in zip(floor.rates, floor.law, strict=True) if value == math.inf}
    )
    if unstable:  # room for the marks on the upper edge, above the highest floor
        highest *= (highest / lowest) ** _MARKS
    log_axis(ax, left, right, along="x")
    ax.set_xticks([tick for tick in ax.get_xticks() if left <= tick <= right])
    log_axis(ax, lowest, highest)
    _shade(ax, floors, unstable, law, right)
    ends, colours = [], style.palette(str(floor.batch) for floor in floors)
    for floor, rows in zip(floors, settled, strict=True):
        colour, curve = colours[str(floor.batch)], smooth[id(floor)]
        ax.plot(
            [x for x, _ in curve], [y for _, y in curve], color=colour, lw=1.5, zorder=3, label=f"law {floor.batch}"
        )
        ax.errorbar(
            [rate for rate, _, _ in rows],
            [value for _, value, _ in rows],
            [_BARS * error for _, _, error in rows],
            fmt="o",
            ms=5.5,
            color=colour,
            mec="white",
            mew=0.7,
            ecolor=colour,
            elinewidth=1.3,
            capsize=2.5,
            zorder=4,
            label=f"batch {floor.batch}",
        )
        known = [(rate, value) for rate, value, _ in rows] or curve
        if known:
            ends.append(End(*known[-1], f"batch {floor.batch}", colour))
    mark_departures(ax, unstable, style.FAINT)
    label_ends(ax, ends, right)
    ax.spines["bottom"].set_bounds(left, right)
    name_axes(ax, "learning rate η", "stationary E f")
    none = f" {LEAVES} no floor." if unstable else ""
    headline(ax, _title(floors, unstable), f"Dots: measured, bars: {_BARS:.0f} standard errors. Lines: the law.{none}")
    return ax


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


def _shade(
    ax: Axes,
    floors: Sequence[Floor],
    unstable: Sequence[float],
    law: Callable[[float, int], float] | None,
    right: float,
) -> None:
    """Shade from the limit of stability on, if no batch size has a floor beyond it."""
    stable = [rate for floor in floors for rate, value in zip(floor.rates, floor.law, strict=True) if value < math.inf]
    if not unstable or (stable and max(stable) >= unstable[0]):
        return
    low, high = max(stable, default=unstable[0] / 1.25), unstable[0]
    for _ in range(60 if law is not None and stable else 0):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if law is not None and law(middle, floors[0].batch) < math.inf else (low, middle)
    # Without the law as a function, all that is known is that the limit lies between two rates.
    limit = high if law is not None and stable else math.sqrt(low * high)
    ax.axvspan(limit, right, color=style.COLOURS["fixed"], alpha=0.1, lw=0, zorder=0)


def _title(floors: Sequence[Floor], unstable: Sequence[float]) -> str:
    """Say how far measured floors are from the law, and where there is none."""
    if not floors:
        return "No floor yet"
    none = f"; none at η = {say(unstable[0])}{' and above' if len(unstable) > 1 else ''}" if unstable else ""
    off = [(worst, rate, floor.batch) for floor in floors for worst, rate in floor.off]
    if not off:
        return f"No floor at any rate: {say(unstable[0])} is beyond the limit" if unstable else "The law is not known"
    worst, rate, batch = max(off)
    if worst <= _BARS:
        return f"Every floor lies within {say(worst)} standard errors of the law{none}"
    apart = f"{say(worst)} standard errors from the law" if math.isfinite(worst) else "not measured"
    return f"At η = {say(rate)} the floor of batch {batch} is {apart}{none}"
