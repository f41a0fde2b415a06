"""Pictures of what follows a drift: the loss and the throttle's alpha, without a throttle and under each law."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from safestep.plots import style
from safestep.plots.curves import quantile
from safestep.plots.frame import count_axis, log_axis, log_frame
from safestep.plots.lines import draw_curve, explain_band
from safestep.plots.panel import bare_axes, legend, name_axes
from safestep.records.report import number

_NONE = "none"
_COLOURS = {_NONE: style.COLOURS["fixed"], "secant": style.COLOURS["pin"], "curvature": style.COLOURS["cap"]}
_WORDS = {_NONE: "no throttle", "secant": "secant law", "curvature": "curvature on the batch"}
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

    Example:
        >>> shown = [Drifted("none", [[3.0, 180.0, 1e4]], [[1.0, 1.0, 1.0]])]
        >>> drift_losses(shown).get_ylabel()
        'loss before the step'
    """
    ax = bare_axes(ax)
    throttled = [loss for run in runs if run.law != _NONE for losses in run.losses for loss in losses]
    every = [loss for run in runs for losses in run.losses for loss in losses]
    first = max((losses[0] for run in runs for losses in run.losses if losses), default=1.0)
    low, high = log_frame(every, ceiling=max([_HIGHEST * first, *(3 * loss for loss in throttled if loss < math.inf)]))
    log_axis(ax, low, high)
    _draw(ax, {run.law: run.losses for run in runs}, high)
    name_axes(ax, "Loss after the drift", "steps after the drift", "loss before the step")
    legend(ax)
    return ax


def drift_alphas(runs: Sequence[Drifted], *, ax: Axes | None = None) -> Axes:
    """Draw the throttle's scale at each step after the drift, on a logarithmic axis; 1 is the plain step.

    Args:
        runs: see `drifted_of`; those without a throttle are left out.
        ax: where to draw; new axes without.

    Example:
        >>> shown = [Drifted("secant", [[3.0, 180.0, 40.0]], [[1.0, 0.17, 0.18]])]
        >>> drift_alphas(shown).get_ylabel()
        'scale α of the step'
    """
    ax = bare_axes(ax)
    alphas = {run.law: run.alphas for run in runs if run.law != _NONE}
    log_axis(ax, *log_frame((alpha for seeds in alphas.values() for seed in seeds for alpha in seed), ceiling=1.2))
    _draw(ax, alphas)
    name_axes(ax, "Scale after the drift", "steps after the drift", "scale α of the step")
    legend(ax)
    return ax


def _draw(ax: Axes, laws: Mapping[str, Sequence[Sequence[float]]], high: float = math.inf) -> None:
    """Draw the median over seeds for every law, with a band of all of them."""
    count_axis(ax, range(max((len(values) for seeds in laws.values() for values in seeds), default=0)))
    for law, seeds in laws.items():
        count = max(map(len, seeds), default=0)
        steps = [[values[step] for values in seeds if step < len(values)] for step in range(count)]
        lowest, median, highest = ([quantile(values, q) for values in steps] for q in (0.0, 0.5, 1.0))
        draw_curve(
            ax,
            range(count),
            median,
            label=_WORDS.get(law, law),
            color=_COLOURS.get(law, style.OTHER),
            high=high,
            band=(lowest, highest) if len(seeds) > 1 else None,
            lw=2.9 if law == _NONE else 1.7,
            zorder=3,
        )
    most = max(map(len, laws.values()), default=1)
    if most > 1:
        explain_band(ax, f"range of {most} seeds")
