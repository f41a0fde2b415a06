"""The picture of an ensemble's loss over its steps: its mean, the band of its runs, and the exact law on top."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from safestep.plots import style
from safestep.plots.endings import capital, say, told
from safestep.plots.endlabels import End, label_ends
from safestep.plots.frame import LEAVES, count_axis, departures, log_axis, log_frame
from safestep.plots.lines import mark_departures
from safestep.plots.panel import bare_axes, headline, name_axes, shorten

_ROOM = 92.0
"""Points that a label takes right of the curves."""
_HIGHEST = 300.0
"""The frame ends at so many times the highest loss that is no divergence."""
_FALLS = "▼"
"""The mark on the lower edge where a curve leaves the frame."""
_BLOWN_UP = 100.0
"""A loss that grows by this factor over the last half of its steps diverges."""


@dataclass(frozen=True)
class LossBand:
    """The loss of an ensemble of runs at recorded steps; columns may be tensors, and are kept as lists.

    Attributes:
        label: of the ensemble.
        steps: the recorded steps, rising.
        mean: of f over the runs, at each of them.
        low: the lower quantile of f over the runs.
        high: the upper one.
        law: the exact E f, if it is known.

    Raises:
        ValueError: if the columns are not of one length.
    """

    label: str
    steps: Sequence[int]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    law: Sequence[float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", [int(step) for step in self.steps])
        for name in ("mean", "low", "high", *(() if self.law is None else ("law",))):
            object.__setattr__(self, name, [float(value) for value in getattr(self, name)])
        lengths = {name: len(getattr(self, name)) for name in ("steps", "mean", "low", "high")}
        if self.law is not None:
            lengths["law"] = len(self.law)
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of the band {self.label!r} have the lengths {lengths}; expected one length")

    @property
    def diverges(self) -> bool:
        """Whether the mean ends where it is not finite, or still grows by orders of magnitude."""
        if not self.mean:
            return False
        start, middle, end = (abs(self.mean[place]) for place in (0, len(self.mean) // 2, -1))
        return not end <= _BLOWN_UP * max(start, middle)

    @property
    def apart(self) -> float | None:
        """How far mean and law are apart at most, in units of the law; None without a law, or where it diverges."""
        pairs = [(m, law) for m, law in zip(self.mean, self.law or (), strict=False) if math.isfinite(law) and law]
        return max((abs(m / law - 1) if math.isfinite(m) else math.inf for m, law in pairs), default=None)


def loss_over_steps(bands: Sequence[LossBand], *, ax: Axes | None = None) -> Axes:
    """Draw the mean loss of ensembles over their steps, with the band of their runs and the exact law dashed on top.

    The axis of the loss is logarithmic unless a mean is negative. A loss that diverges leaves the frame and is marked.

    Args:
        bands: see `LossBand`.
        ax: where to draw; new axes without.

    Returns:
        The axes.

    Example:
        >>> low, mean, high = [33.0, 12.0, 4.0], [33.0, 15.2, 7.1], [33.0, 19.0, 11.0]
        >>> band = LossBand("constant", [0, 1, 2], mean, low, high, law=[33.0, 15.0, 7.0])
        >>> print(*loss_over_steps([band]).get_title(loc="left").split())
        Constant stays within 1.4 % of its law and ends at 7.1
    """
    ax = bare_axes(ax)
    shown = [band for band in bands if len(band.steps)]
    low, high, logarithmic = _loss_axis(ax, shown)
    last, ends, marks = count_axis(ax, [step for band in shown for step in band.steps]), [], set[str]()
    colours = style.palette(band.label for band in shown)
    for band in shown:
        colour, mean = colours[band.label], _drawable(band.mean, low, high)
        ax.plot(band.steps, mean, color=colour, lw=2.2, marker="o" if len(mean) <= 3 else "", ms=4, label=band.label)
        edges = _drawable(band.low, low, high), _drawable(band.high, low, high)
        ax.fill_between(band.steps, *edges, color=colour, alpha=0.18, lw=0, zorder=1)
        if band.law is not None:
            law = _drawable(band.law, low, high)
            ax.plot(band.steps, law, color=style.INK, lw=1.1, ls=(0, (4, 2.5)), zorder=4, label="law")
        above = departures(band.mean, high)
        below = departures([-value for value in band.mean], -low) if not logarithmic else []
        gone = sorted({*above, *(place for place in below if band.mean[place] < low)})
        mark_departures(ax, [band.steps[place] for place in above], colour)
        mark_departures(ax, [band.steps[place] for place in gone if place not in above], colour, below=True)
        marks |= {LEAVES for _ in above} | {_FALLS for place in gone if place not in above}
        end = gone[0] if gone else len(mean) - 1  # a label belongs to what can be seen
        ends.append(End(band.steps[end], band.mean[end], shorten(band.label, _ROOM, style.LABEL_SIZE, lines=2), colour))
    label_ends(ax, ends, last)
    name_axes(ax, "step", "mean of f")
    dashed = " Dashed: the exact law." if any(band.law is not None for band in shown) else ""
    note = f" {' '.join(sorted(marks))} leaves the frame." if marks else ""
    scale = ", log scale" if logarithmic else ""
    headline(ax, _title(shown), f"Mean over the runs{scale}; band: quantiles of the runs.{dashed}{note}")
    return ax


def _loss_axis(ax: Axes, bands: Sequence[LossBand]) -> tuple[float, float, bool]:
    """Scale y for the losses; return where the frame ends below and above, and whether it is logarithmic."""
    calm = [band for band in bands if not band.diverges]
    every = _finite([value for band in bands for value in (*band.mean, *band.low, *band.high, *(band.law or ()))])
    seen = _finite([value for band in calm for value in (*band.mean, *band.high, *(band.law or ()))])
    seen += _finite([band.mean[0] for band in bands])
    top = max(seen, default=1.0)
    if all(value >= 0 for band in bands for value in _finite([*band.mean, *(band.law or ())])):
        low, high = log_frame(every, ceiling=_HIGHEST * top if top > 0 else math.inf)
        log_axis(ax, low, high)
        return low, high, True
    extent = max(map(abs, seen), default=1.0) or 1.0
    bottom = max(min(_finite([value for band in bands for value in band.mean])), -3 * extent)
    room = 0.06 * ((top - bottom) or 1.0)
    ax.set_yscale("linear")
    ax.set_ylim(bottom - room, top + room)
    return bottom - room, top + room, False


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _drawable(values: Sequence[float], low: float, high: float) -> list[float]:
    """Return values with those that are not finite, or far outside the frame, put just far outside."""
    far = 1e3 * (high - low)
    return [min(max(value, low - far), high + far) if not math.isnan(value) else high + far for value in values]


def _title(bands: Sequence[LossBand]) -> str:
    """Say who diverges, how far the others are from their laws, and where they end."""
    if not bands:
        return "No steps yet"
    names = {band.label: shorten(band.label, 2 * _ROOM, style.TITLE_SIZE) for band in bands}
    ends = {names[band.label]: math.inf if band.diverges else band.mean[-1] for band in bands}
    known = {band.label: band.apart for band in bands if band.apart is not None and not band.diverges}
    worst = max(known, key=lambda label: known[label] or 0.0, default=None)
    near = f"within {say(float(f'{100 * (known[worst] or 0.0):.2g}'))} % of" if worst is not None else ""
    if len(bands) == 1:
        ((name, end),) = ends.items()
        if not math.isfinite(end):
            return capital(f"{name} diverges")
        return capital(f"{name} stays {near} its law and ends at {say(end)}" if near else f"{name} ends at {say(end)}")
    first = f"Every mean is {near} its law. " if len(known) == len(bands) else ""
    return first + told(ends, "At the end", "Lowest at the end:", "highest:")
