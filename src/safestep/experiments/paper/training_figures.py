"""The figures of rate-spikes and resnet: accuracies by method; loss and r by step, and r before jumps of the loss."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from safestep.experiments.limits.limits_summary import groups_of
from safestep.experiments.paper.jumps import jumps
from safestep.experiments.runner.experiment import Record, Row
from safestep.records.report import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def dots_by_method(rows: Sequence[Row], paper: Mapping[Any, float], title: str) -> Figure:
    """Draw the accuracy of every run, a panel an architecture, a line a method, a colour a factor."""
    from safestep.plots import style
    from safestep.plots.panel import bare_axes, name_axes, name_figure, name_small, shared_legend, single_figure

    panels = groups_of(rows, "architecture")
    counts = [len(groups_of(group, "method")) for group in panels.values()]
    figure = single_figure(style.WIDTH, 0.33 * sum(counts) + 0.6 * len(counts) + 1.2)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=counts).flatten().tolist()
    colours = dict(zip(sorted({row["factor"] for row in rows}), (style.FAINT, *style.SERIES), strict=False))
    for ax, ((architecture,), group) in zip(axes, panels.items(), strict=True):
        bare_axes(ax)
        methods = list(dict.fromkeys(row["method"] for row in group))
        for (method, factor), runs in groups_of(group, "method", "factor").items():
            several = sorted({row["factor"] for row in group if row["method"] == method})
            height = methods.index(method) + 0.2 * (several.index(factor) - (len(several) - 1) / 2)
            right = [100 * number(row["final_acc"]) for row in runs]
            look: dict[str, Any] = {"color": colours[factor], "mec": "white", "mew": 0.4, "clip_on": False}
            words = f"spike ×{factor:g}" if factor > 1.0 else "no spike"
            ax.plot(right, [height] * len(right), "o", ms=4.2, label=words, **look)
            ax.plot(statistics.median(right), height, "|", color=style.INK, ms=7, mew=1.4, label="median")
            if (told := paper.get((architecture, method, factor))) is not None:
                ax.plot(100 * told, height, "x", color=style.INK, ms=7, mew=1.6, label="paper, ×10000")
        ax.set_yticks(range(len(methods)), methods, fontsize=style.TEXT_SIZE - 2)
        ax.set_ylim(len(methods) - 0.4, -0.6)
        ax.set_xlim(0, 100)
        ax.tick_params(labelbottom=True)
        name_axes(ax, "", "accuracy at the end, %" if ax is axes[-1] else "", "")
        name_small(ax, architecture)
    name_figure(figure, title)
    shared_legend(figure)
    return figure


def loss_and_r(records: Sequence[Record], title: str) -> Figure:
    """Draw loss and r against the step on one axis, a panel a run, with a mark where the loss jumps."""
    from matplotlib.ticker import MaxNLocator

    from safestep.plots import style
    from safestep.plots.frame import count_axis, log_axis
    from safestep.plots.panel import grid_of_panels, name_figure, name_small, shared_legend

    figure = grid_of_panels(len(records), x="step", y="loss in nats, or r")
    for ax, record in zip(figure.axes, records, strict=True):
        log_axis(ax, 1e-3, 100.0)
        losses, ratios = ([number(one) for one in record[key]] for key in ("loss", "r"))
        count_axis(ax, range(len(losses)))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))  # a small panel has room for no more
        ax.axhline(1.0, color=style.INK, lw=0.9, ls=(0, (5, 4)), zorder=4, label="r = 1")
        ax.plot(losses, color=style.COLOURS["fixed"], lw=1.0, label="loss of the batch")
        ax.plot(ratios, color=style.COLOURS["cap"], lw=1.0, label="r of the step")
        places = [step + 1 for step in jumps(losses)[0]]
        ax.plot(places, [60.0] * len(places), "v", color=style.INK, ms=4, label="the loss jumps")
        name_small(ax, record["label"])
    name_figure(figure, title)
    shared_legend(figure)
    return figure


def before_jumps(records: Sequence[Record], title: str) -> Figure:
    """Draw the share of steps with r above a threshold, of those that a jump follows and of all others."""
    from safestep.plots import style
    from safestep.plots.frame import log_axis
    from safestep.plots.panel import grid_of_panels, name_figure, name_small, shared_legend

    panels = groups_of(records, "label")
    figure = grid_of_panels(len(panels), x="threshold for r", y="steps above it, %")
    for ax, ((label,), runs) in zip(figure.axes, panels.items(), strict=True):
        log_axis(ax, 0.01, 100.0, along="x")
        ax.axvline(1.0, color=style.INK, lw=0.9, ls=(0, (5, 4)), label="r = 1")
        both: list[list[float]] = [[], []]
        for run in runs:
            for values, steps in zip(both, jumps([number(one) for one in run["loss"]]), strict=True):
                values += [number(run["r"][step]) for step in steps]
        looks = (("before a jump", style.COLOURS["fixed"], 1.8), ("all other steps", style.FAINT, 1.2))
        for values, (words, colour, width) in zip(both, looks, strict=True):
            if values:
                heights = [100.0 * (1 - place / len(values)) for place in range(len(values))]
                ax.step([0.01, *sorted(values), 100.0], [100.0, *heights, 0.0], color=colour, lw=width, label=words)
        name_small(ax, f"{label}: {len(both[0])} jumps")
    name_figure(figure, title)
    shared_legend(figure)
    return figure
