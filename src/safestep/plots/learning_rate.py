"""The picture of a suggested learning rate: r of the next step against the rate, with the boundary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from safestep.plots import style
from safestep.plots.frame import log_axis, log_frame, plain_number, usable
from safestep.plots.panel import bare_axes, headline, name_axes

if TYPE_CHECKING:
    from safestep.tools.learning_rate import LearningRate

_BLUE, _ORANGE, _GREEN = style.COLOURS["cap"], style.COLOURS["fixed"], style.COLOURS["pin"]


def ratio_over_rates(suggestion: LearningRate, *, ax: Axes | None = None) -> Axes:
    """Draw r of the next step against the learning rate: what was measured, the line through it, and the boundary.

    Args:
        suggestion: what `safestep.suggest_lr` returned. The rate on the axis is that of the leading group.
        ax: where to draw; new axes without.

    Returns:
        The axes.

    Example:
        >>> import torch, safestep
        >>> model = torch.nn.Linear(2, 2)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> found = safestep.suggest_lr(model, sgd, lambda: model(torch.eye(2)).log_softmax(-1)[0, 0].backward())
        >>> ratio_over_rates(found).get_xlabel()
        'learning rate η'
    """
    ax, lr, target = bare_axes(ax), suggestion.lr, suggestion.target
    marks = _marks(suggestion)
    points = list(marks.values()) or [(x, r) for x, r in suggestion.trials if usable([x]) and usable([r])]
    left, right = _frame([x for x, _ in points])
    low, high = _frame([*(r for _, r in points), target])
    log_axis(ax, left, right, along="x")
    log_axis(ax, low, high)
    ax.grid(axis="x", color=style.GRID, lw=0.7)
    ax.axhspan(target, high, color=_ORANGE, alpha=0.1, lw=0, zorder=0)
    ax.plot([left, right], [target, target], color=style.INK, lw=1.0, ls=(0, (6, 3)), label="target", zorder=3)
    if math.isfinite(lr):
        ends = [left, right]
        ax.plot(ends, [target * (x / lr) for x in ends], color=_BLUE, lw=1.7, label="proportional", zorder=3)
        ax.plot([lr, lr], [low, target], color=_GREEN, lw=1.2, ls=(0, (1, 1.5)), zorder=2)
    for (name, (x, r)), colour in zip(marks.items(), (_GREEN, _ORANGE), strict=False):
        ax.plot(x, r, "o", ms=7, color=colour, mec="white", mew=0.8, label=name, zorder=5)
        # Beside a rising line, on the side that it leaves free; two names never on the same.
        place = (-8, 4) if name == max(marks, key=lambda other: marks[other][0]) else (8, -4)
        _label(ax, f"{name}: {x:.3g}", x, r, colour, place)
    if not marks:
        ax.plot([x for x, _ in points], [r for _, r in points], "o", ms=5, color=_BLUE, label="measured", zorder=4)
    _label(ax, f"r = {target:g}", left, target, style.INK, (3, 3))
    group = " of the leading group" if len(suggestion.lrs) > 1 else ""
    name_axes(ax, f"learning rate η{group}", "step ratio r of the next step")
    headline(ax, _title(suggestion), "r in units of the radius, log scales. Shaded: beyond the target.")
    return ax


def _marks(suggestion: LearningRate) -> dict[str, tuple[float, float]]:
    """Return the suggested and the present rate with their r, by name, if there are both and they can be shown."""
    marks = {}
    if math.isfinite(suggestion.lr):
        marks["suggested"] = (suggestion.lr, suggestion.reached)
        if usable([suggestion.present_lr]) and usable([suggestion.ratio]):
            marks["present"] = (suggestion.present_lr, suggestion.ratio)
    return marks


def _frame(values: list[float]) -> tuple[float, float]:
    """Return limits at least two decades apart, with room for a label at either end."""
    low, high = log_frame(values)
    return low / math.sqrt(10), high * math.sqrt(10)


def _label(ax: Axes, text: str, x: float, y: float, colour: str, place: tuple[float, float]) -> None:
    """Write so many points right of and above a place."""
    ax.annotate(
        text,
        (x, y),
        place,
        textcoords="offset points",
        ha="right" if place[0] < 0 else "left",
        va="top" if place[1] < 0 else "bottom",
        color=colour,
        fontsize=style.LABEL_SIZE,
        path_effects=[withStroke(linewidth=3, foreground="white", alpha=0.8)],
        zorder=6,
    )


def _title(suggestion: LearningRate) -> str:
    goal = f"r = {plain_number(suggestion.target)}"
    return {
        "found": f"The next step reaches {goal} at the learning rate {suggestion.lr:.3g}",
        "near": f"The next step comes near {goal} at the learning rate {suggestion.lr:.3g}",
        "unbounded": "At any learning rate the next step stays inside: it moves no logit against another",
        "unreached": f"r does not follow the learning rate: none that was tried gives {goal}",
        "nonfinite": "The next step is not finite: there is no learning rate to suggest",
    }[suggestion.status]
