"""The picture of a post-mortem: the loss along the step, with its boundary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from safestep.plots import style
from safestep.plots.frame import log_axis, log_frame, usable
from safestep.plots.lines import draw_curve
from safestep.plots.panel import bare_axes, legend, name_axes

if TYPE_CHECKING:
    from safestep.tools.autopsy import Autopsy

_BLUE, _ORANGE = style.COLOURS["cap"], style.COLOURS["fixed"]


def loss_along_step(found: Autopsy, *, ax: Axes | None = None) -> Axes:
    """Draw the loss along a step, of its batch and of an ordinary one, with the boundary r = 1 and the step's end.

    Args:
        found: what `safestep.tools.autopsy.autopsy` returned.
        ax: where to draw; new axes without.
    """
    ax, points = bare_axes(ax), [point for point in found.curve if point.t > 0.0]
    curves = {"its batch": [p.loss for p in points], "an ordinary batch": [p.ordinary for p in points]}
    shown = {name: losses for name, losses in curves.items() if not all(map(math.isnan, losses))}
    start = found.curve[0].loss
    low, high = log_frame([one for losses in shown.values() for one in losses], ceiling=1e6 * start, keep=[start])
    log_axis(ax, low, high)
    ts = [point.t for point in points]
    log_axis(ax, ts[0], ts[-1], along="x")
    if usable([found.ratio]):
        ax.axvspan(min(1.0 / found.ratio, ts[-1]), ts[-1], color=_ORANGE, alpha=0.1, lw=0, zorder=0, label="r above 1")
    for (name, losses), colour in zip(shown.items(), (_ORANGE, _BLUE), strict=False):
        draw_curve(ax, ts, losses, label=name, color=colour, low=low, high=high)
    ax.axvline(1.0, color=style.INK, lw=1.2, label=f"the step, r = {found.ratio:.3g}")
    name_axes(ax, "Loss along the step", "part of the step t", "loss")
    legend(ax)
    return ax
