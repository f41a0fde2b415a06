"""The picture of who ends how far behind the best tuned run: a line a method, a dot a run, a small panel a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from safestep.plots import style
from safestep.plots.frame import plain_number
from safestep.plots.panel import bare_axes, name_axes, name_figure, name_small, single_figure

_LOW, _HIGH = -30.0, 100.0
"""The frame, in units of what is allowed."""
_ROW, _REST = 0.24, 1.1
"""Inches of a line, and of what stands above and below the lines of a panel."""


def gap_dots(
    panels: Mapping[str, Mapping[str, Sequence[float]]], *, ours: Sequence[str] = (), title: str = ""
) -> Figure:
    """Draw gaps to the best tuned run by method, the best method on top, by its median and, of equal ones, its worst.

    Gaps are linear up to what is allowed (1; shaded), logarithmic beyond. A triangle at the right edge is worse than
    the frame shows, or lost; a bar joins the runs of a method, and a stroke is their median.

    Args:
        panels: by the name of the case and that of the method, the gaps of its runs in units of what is allowed.
        ours: methods in a colour of their own.
        title: above all panels.

    Returns:
        A figure outside pyplot.

    Example:
        >>> figure = gap_dots({"digits": {"theirs": [9.0, 3.0, float("inf")], "ours": [0.2, -1.0, 0.5]}}, ours=["ours"])
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['ours', 'theirs']
    """
    lines = [len(panel) for panel in panels.values()] or [1]
    figure = single_figure(style.WIDTH, sum(_ROW * count + _REST for count in lines))
    axes = figure.subplots(len(lines), 1, sharex=True, squeeze=False, height_ratios=lines).flatten().tolist()
    for ax, (name, methods) in zip(axes, panels.items(), strict=False):
        bare_axes(ax).grid(visible=False)
        ax.set_xscale("symlog", linthresh=1.0, linscale=0.6)
        ax.set_xlim(_LOW, _HIGH)
        ax.xaxis.set_major_locator(FixedLocator([-10, -1, 0, 1, 10, 100]))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
        ax.axvspan(_LOW, 1.0, color=style.GRID, alpha=0.5, lw=0, zorder=0)
        ordered = sorted(methods, key=lambda method: (_median(methods[method]), max(methods[method])))
        for row, method in enumerate(ordered):
            colour = style.COLOURS["cap"] if method in ours else style.FAINT
            gaps = sorted(min(max(gap, _LOW), _HIGH) for gap in methods[method])
            ax.plot([gaps[0], gaps[-1]], [row, row], color=colour, lw=1.2, alpha=0.6, zorder=2)
            for gap in gaps:
                ax.plot(gap, row, ">" if gap == _HIGH else "o", color=colour, ms=4.5, mec="white", mew=0.5,
                        clip_on=False, zorder=4)  # fmt: skip
            ax.plot(min(max(_median(methods[method]), _LOW), _HIGH), row, "|", color=style.INK, ms=9, mew=1.5, zorder=5)
        ax.set_yticks(range(len(ordered)), ordered, fontsize=style.TEXT_SIZE - 2)
        ax.set_ylim(len(ordered) - 0.5, -0.5)
        ax.tick_params(labelbottom=True)
        name_small(ax, name)
    name_axes(axes[-1], axes[-1].get_title(loc="left"), "gap / allowed", "")
    if panels:
        name_small(axes[-1], list(panels)[-1])
    name_figure(figure, title)
    return figure


def _median(gaps: Sequence[float]) -> float:
    ordered = sorted(gaps)
    return ordered[(len(ordered) - 1) // 2]
