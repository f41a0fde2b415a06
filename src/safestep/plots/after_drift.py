"""Pictures of what follows a drift: the loss and the throttle's alpha, without a throttle and under each law."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from safestep.plots import style
from safestep.plots.curves import quantile
from safestep.plots.endlabels import End, label_ends
from safestep.plots.frame import LEAVES, count_axis, departures, drawable, log_axis, log_frame, plain_number
from safestep.plots.lines import mark_departures
from safestep.plots.panel import bare_axes, headline, name_axes
from safestep.records.report import number

_NONE = "none"
_COLOURS = {_NONE: style.COLOURS["fixed"], "secant": style.COLOURS["pin"], "curvature": style.COLOURS["cap"]}
_WORDS = {_NONE: "no throttle", "secant": "secant", "curvature": "curvature"}
_HIGHEST = 300.0
"""The frame ends at so many times the highest first loss, or where a throttled run was, if that is higher."""


@dataclass(frozen=True)
class Drifted:
    """The runs of one law after a drift, one list per seed.

    Attributes:
        law: "none", "secant" or "curvature".
        losses: before each step.
        alphas: the scale of each step.
    """

    law: str
    losses: Sequence[Sequence[float]]
    alphas: Sequence[Sequence[float]]


def drifted_of(records: Iterable[Mapping[str, Any]], gain: float) -> list[Drifted]:
    """Gather the runs B and C at one gain from the lines of kind "drift" of a records.jsonl.

    Args:
        records: parsed lines, each a piece of a run with one list per column.
        gain: of the drift.

    Example:
        >>> line = {"kind": "drift", "run": "B", "law": "none", "gain": 4.0, "seed": 7}
        >>> drifted_of([{**line, "first_step": 0, "loss": ["inf"], "alpha": [1.0]}], 4.0)
        [Drifted(law='none', losses=[[inf]], alphas=[[1.0]])]
    """
    found: dict[str, dict[Any, tuple[list[float], list[float]]]] = {}
    for record in records:
        if record.get("kind") == "drift" and record["run"] in {"B", "C"} and record["gain"] == gain:
            losses, alphas = found.setdefault(record["law"], {}).setdefault(record["seed"], ([], []))
            losses += map(number, record["loss"])
            alphas += map(number, record["alpha"])
    return [
        Drifted(law, [losses for losses, _ in seeds.values()], [alphas for _, alphas in seeds.values()])
        for law, seeds in found.items()
    ]


def drift_losses(runs: Sequence[Drifted], *, ax: Axes | None = None) -> Axes:
    """Draw the loss of each step after the drift, on a logarithmic axis.

    Args:
        runs: see `drifted_of`.
        ax: where to draw; new axes without.

    Returns:
        The axes.

    Example:
        >>> shown = [Drifted("none", [[3.0, 180.0, 1e4]], [[1.0, 1.0, 1.0]])]
        >>> drift_losses(shown).get_title(loc="left")
        'No throttle: ×3333'
    """
    ax = bare_axes(ax)
    throttled = [loss for run in runs if run.law != _NONE for losses in run.losses for loss in losses]
    every = [loss for run in runs for losses in run.losses for loss in losses]
    first = max((losses[0] for run in runs for losses in run.losses if losses), default=1.0)
    low, high = log_frame(every, ceiling=max([_HIGHEST * first, *(3 * loss for loss in throttled if loss < math.inf)]))
    log_axis(ax, low, high)
    left = _draw(ax, [(run, run.losses) for run in runs], high)
    name_axes(ax, "steps after the drift", "loss")
    title = "; ".join(f"{_WORDS[run.law]}: {_course(run)}" for run in runs)
    gone = f" {LEAVES} beyond the frame." if left else ""
    subtitle = f"Loss before each step, log scale; × its largest over its first value.{gone}{_over(runs)}"
    headline(ax, f"{title[:1].upper()}{title[1:]}" if runs else "No run yet", subtitle)
    return ax


def drift_alphas(runs: Sequence[Drifted], *, ax: Axes | None = None) -> Axes:
    """Draw the throttle's scale at each step after the drift, on a logarithmic axis.

    Args:
        runs: see `drifted_of`; those without a throttle are left out.
        ax: where to draw; new axes without.

    Returns:
        The axes.

    Example:
        >>> shown = [Drifted("secant", [[3.0, 180.0, 40.0]], [[1.0, 0.17, 0.18]])]
        >>> drift_alphas(shown).get_title(loc="left")
        'First α: secant 1; at last 0.18'
    """
    ax = bare_axes(ax)
    shown = [run for run in runs if run.law != _NONE]
    low, high = log_frame((alpha for run in shown for alphas in run.alphas for alpha in alphas), ceiling=1.2)
    log_axis(ax, low, high)
    _draw(ax, [(run, run.alphas) for run in shown], math.inf)
    name_axes(ax, "steps after the drift", "scale α")
    firsts = ", ".join(f"{_WORDS[run.law]} {plain_number(_median(run.alphas, 0))}" for run in shown)
    lasts = dict.fromkeys(plain_number(_median(run.alphas, -1)) for run in shown)
    title = f"First α: {firsts}; at last {' and '.join(lasts)}" if shown else "No throttled run yet"
    headline(ax, title, f"What each step was multiplied by, log scale; 1 is the plain step.{_over(shown)}")
    return ax


def _draw(ax: Axes, lines: Sequence[tuple[Drifted, Sequence[Sequence[float]]]], high: float) -> bool:
    longest = max((len(values) for _, seeds in lines for values in seeds), default=0)
    last = count_axis(ax, range(longest))
    ends, left = [], False
    for run, seeds in lines:
        colour = _COLOURS.get(run.law, style.OTHER)
        count = max(map(len, seeds), default=0)
        columns = [[values[step] for values in seeds if step < len(values)] for step in range(count)]
        median = [quantile(column, 0.5) for column in columns]
        ax.plot(drawable(median, high), color=colour, lw=2.9 if run.law == _NONE else 1.7, zorder=3)
        if len(seeds) > 1:
            low_edge, high_edge = [min(column) for column in columns], [max(column) for column in columns]
            edges = drawable(low_edge, high), drawable(high_edge, high)
            ax.fill_between(range(count), *edges, color=colour, alpha=0.18, lw=0, zorder=1)
        gone = departures(median, high) if math.isfinite(high) else []
        mark_departures(ax, gone, colour)
        left = left or bool(gone)
        end = gone[0] if gone else count - 1  # a label belongs to what can be seen
        ends.append(End(float(end), median[end], _WORDS.get(run.law, run.law), colour))
    label_ends(ax, ends, last)
    return left


def _median(seeds: Sequence[Sequence[float]], step: int) -> float:
    return quantile([values[step] for values in seeds if values], 0.5)


def _course(run: Drifted) -> str:
    """Say how far the loss rose above where it began, in the worst seed."""
    ratios = [max(losses) / losses[0] if all(map(math.isfinite, losses)) else math.inf for losses in run.losses]
    worst = max(ratios, default=math.nan)
    return "diverges" if math.isinf(worst) else f"×{plain_number(worst)}"


def _over(runs: Sequence[Drifted]) -> str:
    seeds = max((len(run.losses) for run in runs), default=1)
    return f" Line: median of {seeds} seeds; band: all of them." if seeds > 1 else ""
