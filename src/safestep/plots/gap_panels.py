"""The picture of what a limit costs or wins: gaps to the best tuned run, a small panel a case, a line a limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from safestep.plots import style
from safestep.plots.frame import log_axis, plain_number
from safestep.plots.panel import grid_of_panels, name_figure, name_small, shared_legend

_LOW, _HIGH = -30.0, 100.0
"""The frame, in units of what is allowed."""
_ROOM, _APART = 1.4, 0.3
"""The factor beyond the outermost places, and the part of their decades from the last one to what has none."""
_FEW = 5
"""Numbers that have room below a small panel."""
_LOOKS = {"plain": ("o", "-"), "cap": ("o", "-"), "pin": ("D", "--"), "pin-decay": ("s", ":")}


@dataclass(frozen=True)
class GapLine:
    """Gaps to the best tuned run in one case, in units of what is allowed.

    Attributes:
        limit: what limits the steps, which gives the colour; empty for plain runs.
        policy: "plain", "cap", "pin" or "pin-decay", which give marker and dashes.
        points: rates or targets, rising, each with its gap, inf for a lost run; runs without a rate have None for it.
    """

    limit: str
    policy: str
    points: Sequence[tuple[float | None, float]]


def gap_panels(panels: Mapping[str, Sequence[GapLine]], *, x: str, ours: str = "", title: str = "") -> Figure:
    """Draw gaps against a rate or target, one small panel a case, with one frame for all.

    Gaps are linear up to what is allowed (1; shaded), logarithmic beyond. A triangle on the edge is worse than the
    frame shows, or lost. Runs without a rate stand at the right, above "none".

    Args:
        panels: lines by the name of the case.
        x: what the axis measures; it is logarithmic.
        ours: a limit that has the colour of caps, which no other one has then.
        title: above all panels.

    Returns:
        A figure outside pyplot.

    Example:
        >>> lines = [GapLine("", "plain", [(1.0, 0.0), (9.0, float("inf"))]), GapLine("mean", "pin", [(None, 0.2)])]
        >>> gap_panels({"digits, SGD": lines}, x="rate").axes[0].get_title(loc="left")
        'digits, SGD'
    """
    figure = grid_of_panels(max(1, len(panels)), x=x, y="gap / allowed")
    lines = [line for drawn in panels.values() for line in drawn]
    everywhere = {place for line in lines for place, _ in line.points}
    places = sorted(place for place in everywhere if place is not None) or [1.0]
    none = places[-1] * max(4.0, (places[-1] / places[0]) ** _APART)
    ticks = [*_apart(places), *([none] if None in everywhere else [])]
    limits = dict.fromkeys(line.limit for line in lines if line.limit)
    free = [colour for colour in style.SERIES if not ours or colour != style.COLOURS["cap"]]
    colours = {"": style.FAINT, **dict(zip((limit for limit in limits if limit != ours), cycle(free), strict=False))}
    colours |= {ours: style.COLOURS["cap"]} if ours else {}
    # Each lies broader below the next, so that one on top of another lets it be seen.
    widths = {limit: 1.2 + 0.6 * place for place, limit in enumerate(reversed(colours))} | ({ours: 2.4} if ours else {})
    for ax, (name, drawn) in zip(figure.axes, panels.items(), strict=False):
        log_axis(ax, places[0] / _ROOM, max(ticks[-1], places[-1]) * _ROOM, along="x")
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "none" if value == none else plain_number(value)))
        ax.tick_params(axis="x", labelsize=style.TEXT_SIZE - 2)
        ax.set_yscale("symlog", linthresh=1.0, linscale=0.6)
        ax.set_ylim(_LOW, _HIGH)
        ax.yaxis.set_major_locator(FixedLocator([-10, -1, 0, 1, 10, 100]))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
        for line in drawn:
            points = [(none if place is None else place, gap) for place, gap in line.points]
            _draw(ax, line, points, color=colours[line.limit], lw=widths[line.limit])
        for policy in dict.fromkeys(line.policy for line in drawn if line.limit and not ours):
            marker, dashes = _LOOKS[policy]
            ax.plot([], [], dashes, marker=marker, color=style.FAINT, ms=4.5, label=policy)
        ax.axhspan(_LOW, 1.0, color=style.GRID, alpha=0.5, lw=0, zorder=0, label="within what is allowed")
        name_small(ax, name)
    name_figure(figure, title)
    shared_legend(figure)
    return figure


def _apart(places: Sequence[float]) -> list[float]:
    """Return the places that have room for a number: all of a few, of many those that are far enough apart."""
    if len(places) <= _FEW:
        return list(places)
    factor, kept = (places[-1] / places[0]) ** (1 / _FEW), [places[0]]
    for place in places[1:]:
        if place >= kept[-1] * factor:
            kept.append(place)
    return kept


def _draw(ax: Axes, line: GapLine, points: Sequence[tuple[float, float]], *, color: str, lw: float) -> None:
    marker, dashes = _LOOKS[line.policy]
    x, y = [place for place, _ in points], [min(max(gap, _LOW), _HIGH) for _, gap in points]
    ax.plot(x, y, dashes, color=color, lw=lw, zorder=3)
    ax.plot([], [], color=color, lw=2.5, label=line.limit or "plain")
    for place, gap in points:
        leaves = {_LOW: "v", _HIGH: "^"}.get(min(max(gap, _LOW), _HIGH))
        ax.plot(place, min(max(gap, _LOW), _HIGH), leaves or marker, ms=3.2 + lw, color=color, mec="white", mew=0.5,
                clip_on=False, zorder=4)  # fmt: skip
        if leaves:
            ax.plot([], [], "^", color=style.FAINT, label=style.LEAVES)
