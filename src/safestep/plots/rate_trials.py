"""The picture of a suggested learning rate: r of the next step against the rate, with the boundary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from safestep.plots import style
from safestep.plots.frame import log_axis, log_frame, usable
from safestep.plots.panel import bare_axes, legend, name_axes

if TYPE_CHECKING:
    from safestep.tools.learning_rate import LearningRate

_BLUE, _ORANGE, _GREEN = style.COLOURS["cap"], style.COLOURS["fixed"], style.COLOURS["pin"]


def ratio_over_rates(suggestion: LearningRate, *, ax: Axes | None = None) -> Axes:
    """Draw r of the next step against the learning rate: what was measured, the line through it, and the boundary.

    Args:
        suggestion: what `safestep.suggest_lr` returned. The rate on the axis is that of the leading group.
        ax: where to draw; new axes without.

    Example:
        >>> import torch, safestep
        >>> model = torch.nn.Linear(2, 2)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> found = safestep.suggest_lr(model, sgd, lambda: model(torch.eye(2)).log_softmax(-1)[0, 0].backward())
        >>> ratio_over_rates(found).get_xlabel()
        'learning rate η'
    """
    ax, lr, target = bare_axes(ax), suggestion.lr, suggestion.target
    marks: dict[str, tuple[float, float, str]] = {}
    if math.isfinite(lr):
        marks["suggested"] = (lr, suggestion.reached, _GREEN)
        if usable([suggestion.present_lr]) and usable([suggestion.ratio]):
            marks["present"] = (suggestion.present_lr, suggestion.ratio, _ORANGE)
    trials = [(x, r) for x, r in suggestion.trials if usable([x]) and usable([r])]
    points = [(x, r) for x, r, _ in marks.values()] or trials
    left, right = log_frame(x for x, _ in points)
    low, high = log_frame([*(r for _, r in points), target])
    log_axis(ax, left, right, along="x")
    log_axis(ax, low, high)
    ax.grid(axis="x", color=style.GRID, lw=0.7)
    ax.axhspan(target, high, color=_ORANGE, alpha=0.1, lw=0, zorder=0, label="beyond the target")
    ax.plot([left, right], [target] * 2, color=style.INK, lw=1.0, ls=(0, (6, 3)), label=f"target, r = {target:g}")
    if marks:
        ends = [left, right]
        ax.plot(ends, [target * (x / lr) for x in ends], color=_BLUE, lw=1.7, label="r in proportion", zorder=3)
        ax.plot([lr, lr], [low, target], color=_GREEN, lw=1.2, ls=(0, (1, 1.5)), zorder=2)
        for name, (x, r, colour) in marks.items():
            ax.plot(x, r, "o", ms=7, color=colour, mec="white", mew=0.8, label=f"{name}: {x:.3g}", zorder=5)
    else:
        ax.plot([x for x, _ in points], [r for _, r in points], "o", ms=5, color=_BLUE, zorder=4,
                label=f"measured, {suggestion.status.value}")  # fmt: skip
    group = " of the leading group" if len(suggestion.lrs) > 1 else ""
    name_axes(ax, "How far the next step goes", f"learning rate η{group}", "step ratio r of the next step")
    legend(ax)
    return ax
