"""The picture of an ensemble's loss over its steps: its mean, the band of its runs, and the exact law on top."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from safestep.plots import style
from safestep.plots.frame import count_axis, log_axis, log_frame
from safestep.plots.lines import draw_curve, explain_band, near_frame
from safestep.plots.panel import bare_axes, legend, name_axes

_HIGHEST = 300.0
"""The frame ends at so many times the highest loss that is no divergence."""
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
        columns = {"mean": self.mean, "low": self.low, "high": self.high}
        columns |= {} if self.law is None else {"law": self.law}
        lengths = {"steps": len(self.steps), **{name: len(column) for name, column in columns.items()}}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of the band {self.label!r} have the lengths {lengths}; expected one length")
        object.__setattr__(self, "steps", [int(step) for step in self.steps])
        for name, column in columns.items():
            object.__setattr__(self, name, [float(value) for value in column])

    @property
    def diverges(self) -> bool:
        """Whether the mean ends where it is not finite, or still grows by orders of magnitude."""
        if not self.mean:
            return False
        start, middle, end = (abs(self.mean[place]) for place in (0, len(self.mean) // 2, -1))
        return not end <= _BLOWN_UP * max(start, middle)


def loss_over_steps(bands: Sequence[LossBand], *, ax: Axes | None = None) -> Axes:
    """Draw the mean loss of ensembles over their steps, with the band of their runs and the exact law dashed on top.

    The axis of the loss is logarithmic unless a mean is negative. A loss that diverges leaves the frame and is marked.

    Args:
        bands: see `LossBand`.
        ax: where to draw; new axes without.

    Example:
        >>> low, mean, high = [33.0, 12.0, 4.0], [33.0, 15.2, 7.1], [33.0, 19.0, 11.0]
        >>> ax = loss_over_steps([LossBand("constant", [0, 1, 2], mean, low, high, law=[33.0, 15.0, 7.0])])
        >>> ax.get_legend_handles_labels()[1]
        ['constant', 'exact law', 'quantiles of the runs']
    """
    ax = bare_axes(ax)
    shown = [band for band in bands if len(band.steps)]
    low, high = _loss_axis(ax, shown)
    count_axis(ax, [step for band in shown for step in band.steps])
    colours = style.palette(band.label for band in shown)
    for band in shown:
        draw_curve(ax, band.steps, band.mean, label=band.label, color=colours[band.label], low=low, high=high,
                   band=(band.low, band.high), lw=2.2)  # fmt: skip
    for band in shown:
        if band.law is not None:
            law = near_frame(band.law, low, high)
            ax.plot(band.steps, law, color=style.INK, lw=1.1, ls=(0, (4, 2.5)), zorder=4, label="exact law")
    if shown:
        explain_band(ax, "quantiles of the runs")
    name_axes(ax, "Loss of the ensemble", "step", "mean of f")
    legend(ax)
    return ax


def _loss_axis(ax: Axes, bands: Sequence[LossBand]) -> tuple[float, float]:
    """Scale y for the losses; return where a curve leaves the frame below and above."""
    calm = [band for band in bands if not band.diverges]
    seen = _finite(value for band in calm for values in (band.mean, band.high, band.law or ()) for value in values)
    seen += _finite(band.mean[0] for band in bands)
    means = _finite(value for band in bands for values in (band.mean, band.law or ()) for value in values)
    if all(value >= 0 for value in means):
        top = max(seen, default=1.0)
        lows = _finite(value for band in bands for value in band.low)
        low, high = log_frame([*means, *seen, *lows], ceiling=_HIGHEST * top if top > 0 else math.inf)
        log_axis(ax, low, high)
        return -math.inf, high
    top, extent = max(seen), max(map(abs, seen))
    bottom = max(min(means), -3 * extent)
    room = 0.06 * ((top - bottom) or 1.0)
    ax.set_yscale("linear")
    ax.set_ylim(bottom - room, top + room)
    return bottom - room, top + room


def _finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]
