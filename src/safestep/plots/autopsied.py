"""Pictures of a post-mortem: the loss along the step with its boundary, and what layers and samples have of r."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes

from safestep.plots import style
from safestep.plots.frame import log_axis, log_frame, usable
from safestep.plots.lines import draw_curve
from safestep.plots.panel import bare_axes, legend, name_axes

if TYPE_CHECKING:
    from safestep.tools.autopsy import Autopsy

_MOST, _LETTERS = 12, 18
"""Layers that are drawn, those with the largest r, and letters of their names, the last."""
_BLUE, _ORANGE = style.COLOURS["cap"], style.COLOURS["fixed"]
_DOT: dict[str, Any] = {"ls": "", "ms": 5, "mec": "white", "mew": 0.5}
_DOTS = ({**_DOT, "marker": "o", "color": _ORANGE}, {**_DOT, "marker": "s", "color": _BLUE})
_LEVEL: dict[str, Any] = {"color": style.INK, "lw": 0.9, "ls": (0, (5, 4))}


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


def layer_ratios(found: Autopsy, *, ax: Axes | None = None) -> Axes:
    """Draw r of each layer's part of a step alone, and of the step without it: those that go farthest.

    Args:
        found: what `safestep.tools.autopsy.autopsy` returned.
        ax: where to draw; new axes without.
    """
    most = sorted(found.layers, key=lambda layer: -layer.alone)[:_MOST]
    layers = [layer for layer in found.layers if layer in most]
    parts = {"its part alone": [one.alone for one in layers], "the step without it": [one.without for one in layers]}
    ax = bare_axes(ax)
    log_axis(ax, *_frame(parts, found.ratio), along="x")
    for (label, values), look in zip(parts.items(), _DOTS, strict=True):
        ax.plot(values, range(len(layers)), label=label, **look)
    ax.axvline(1.0, label="the boundary, r = 1", **_LEVEL)
    ax.set_yticks(range(len(layers)), [layer.name[-_LETTERS:] for layer in layers])
    ax.invert_yaxis()
    name_axes(ax, "What each layer carries", "step ratio r", "")
    legend(ax)
    return ax


def sample_ratios(found: Autopsy, *, ax: Axes | None = None) -> Axes:
    """Draw r of every sample of a step's batch, the farthest first.

    Args:
        found: what `safestep.tools.autopsy.autopsy` returned.
        ax: where to draw; new axes without.
    """
    ax, ratios = bare_axes(ax), [sample.ratio for sample in found.samples]
    log_axis(ax, *_frame({"": ratios}, found.ratio))
    ax.plot(range(len(ratios)), ratios, label="a sample", **_DOTS[0])
    ax.axhline(1.0, label="the boundary, r = 1", **_LEVEL)
    name_axes(ax, "How far each sample is moved", "samples, the farthest first", "step ratio r")
    legend(ax)
    return ax


def _frame(rows: Mapping[str, Sequence[float]], ratio: float) -> tuple[float, float]:
    return log_frame([value for values in rows.values() for value in values], keep=[1.0, *usable([ratio])])
