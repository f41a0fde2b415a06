"""The picture of an audit: how large a share of the applied steps went beyond the target, and how far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from safestep.plots import style
from safestep.plots.endlabels import End, label_ends
from safestep.plots.frame import log_axis, plain_number
from safestep.plots.headlines import sentence
from safestep.plots.panel import bare_axes, headline, name_axes
from safestep.records.report import number

_COLOURS = {"exact": style.FAINT, "control": "#CC79A7", "probe": "#D55E00", "tiered": "#0072B2"}
_LEAVES = "\N{BLACK RIGHT-POINTING TRIANGLE}"
"""The mark on the right edge where a curve leaves the frame."""
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

    Returns:
        The axes.

    Example:
        >>> print(*audited_ratios({"tiered": [0.5, 1.0, 1.01]}).get_title(loc="left").split())
        No audited step goes beyond 1.01 of the target
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
    ax.fill_between([_FEW, _NONE], _SHARE, 1.5, color=style.GRID, lw=0, zorder=0.5)
    ax.fill_between([_NONE, last], low, 1.5, color=style.GRID, lw=0, zorder=0.5)
    ends = []
    for i, (method, ratios) in enumerate(curves.items()):
        colour = _COLOURS.get(method, style.OTHER)
        x, y = _survival(ratios, last)
        # The first lies broad below the others, so that one on top of another lets it be seen.
        ax.step(x, y, where="post", color=colour, lw=1.7 if i else 3.4, zorder=3)
        share = y[-2] if y[-1] == 0.0 else y[-1]
        ends.append(End(x[-1], share, method, colour))
        if ratios[-1] > last:
            ax.plot(last, share, ">", ms=8, color=colour, mec="white", mew=0.6, clip_on=False, zorder=5)
    label_ends(ax, ends, last)
    apart = 0.1 if last < 1.5 else 0.2
    ax.set_xticks([_FIRST + apart * i for i in range(int((last - _FIRST) / apart + 1.001))])
    ax.spines["bottom"].set_bounds(_FIRST, last)
    name_axes(ax, "exact r as applied, over the target", "steps that are longer")
    beyond = f" {_LEAVES} beyond the frame." if far > last else ""
    subtitle = (
        f"Share of the audited steps, log scale. Grey is forbidden: more than {100 * _SHARE:g} % of the steps above "
        f"{_FEW:g}, any above {_NONE:g}.{beyond}"
    )
    headline(ax, _title(curves), subtitle)
    return ax


def _survival(ratios: Sequence[float], last: float) -> tuple[list[float], list[float]]:
    """Return where the share of longer values changes, up to a last place, and the share from there on."""
    seen = [ratio for ratio in ratios if ratio <= last]
    shares = [(len(ratios) - i) / len(ratios) for i in range(len(seen) + 1)]
    ends = ([], []) if len(seen) == len(ratios) else ([last], shares[-1:])
    return [0.0, *seen, *ends[0]], [*shares, *ends[1]]


def _title(curves: Mapping[str, Sequence[float]]) -> str:
    if not curves:
        return "No step was audited"
    past = {method: ratios[-1] for method, ratios in curves.items() if ratios[-1] > _NONE}
    if past:
        named = ", ".join(f"{method} reaches {plain_number(worst)}" for method, worst in past.items())
        return sentence(f"{named} of the target")
    return f"No audited step goes beyond {plain_number(max(ratios[-1] for ratios in curves.values()))} of the target"
