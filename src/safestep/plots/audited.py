"""The picture of an audit: how large a share of the applied steps went beyond the target, and how far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from safestep.plots import style
from safestep.plots.frame import log_axis, plain_number
from safestep.plots.panel import bare_axes, legend, name_axes
from safestep.records.report import number

_COLOURS = {"exact": style.FAINT, "control": "#CC79A7", "probe": "#D55E00", "tiered": "#0072B2"}
_FIRST, _LEAST_LAST, _LAST = 0.8, 1.3, 2.0
"""Where the axis of ratios begins, and between what it ends."""
_FEW, _NONE, _SHARE = 1.05, 1.2, 0.005
"""At most this share of the steps may lie above the first of these, and none above the second."""


def audited_of(records: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Gather the audited ratios of a records.jsonl by the method of measuring r.

    Args:
        records: parsed lines; used are those of kind "steps", each a piece of a run with one list per column.

    Example:
        >>> audited_of([{"kind": "steps", "method": "tiered", "audited_ratio": [0.5, "nan"]}])
        {'tiered': [0.5]}
    """
    found: dict[str, list[float]] = {}
    for record in records:
        if record.get("kind") == "steps":
            ratios = map(number, record["audited_ratio"])
            found.setdefault(record["method"], []).extend(ratio for ratio in ratios if not math.isnan(ratio))
    return {method: ratios for method, ratios in found.items() if ratios}


def audited_ratios(audited: Mapping[str, Sequence[float]], *, target: float = 1.0, ax: Axes | None = None) -> Axes:
    """Draw, for every method, the share of the steps that were longer than a ratio, against the ratio.

    Args:
        audited: exact r of the applied steps, by method; see `audited_of`.
        target: the largest r that was aimed at.
        ax: where to draw; new axes without.

    Example:
        >>> audited_ratios({"tiered": [0.5, 1.0, 1.01]}).get_xlabel()
        'exact r as applied, over the target'
    """
    ax = bare_axes(ax)
    curves = {method: sorted(ratio / target for ratio in ratios) for method, ratios in audited.items() if ratios}
    most = max((len(ratios) for ratios in curves.values()), default=1)
    far = max((ratios[-1] for ratios in curves.values()), default=1.0)
    last = min(max(_LEAST_LAST, 1.05 * far), _LAST)
    low = min(0.4 / most, _SHARE / 10)
    log_axis(ax, low, 1.5)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{plain_number(100 * share)} %"))
    ax.set_xlim(_FIRST, last)
    for place, (method, ratios) in enumerate(curves.items()):
        colour = _COLOURS.get(method, style.OTHER)
        x, y = _survival(ratios, last)
        # Each lies broader below the next, so that one on top of another lets it be seen.
        ax.step(x, y, where="post", color=colour, lw=1.5 + 1.8 * (len(curves) - 1 - place), label=method, zorder=3)
        if ratios[-1] > last:
            ax.plot(last, y[-1], ">", ms=8, color=colour, mec="white", mew=0.6, clip_on=False, zorder=5)
    if far > last:
        ax.plot([], [], ">", color=style.FAINT, label=style.LEAVES)
    ax.fill_between([_FEW, _NONE], _SHARE, 1.5, color=style.GRID, lw=0, zorder=0.5, label="more than allowed")
    ax.fill_between([_NONE, last], low, 1.5, color=style.GRID, lw=0, zorder=0.5)
    name_axes(ax, "Audited step ratios", "exact r as applied, over the target", "share of steps that are longer")
    legend(ax)
    return ax


def _survival(ratios: Sequence[float], last: float) -> tuple[list[float], list[float]]:
    """Return where the share of longer values changes, up to a last place, and the share from there on."""
    seen = [ratio for ratio in ratios if ratio <= last]
    shares = [(len(ratios) - i) / len(ratios) for i in range(len(seen) + 1)]
    beyond = len(seen) < len(ratios)
    return [0.0, *seen, *([last] if beyond else [])], [*shares, *(shares[-1:] if beyond else [])]
