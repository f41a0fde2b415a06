"""The figure of policy-optimisation: steps balanced, and the divergence of an update, by learning rate."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from safestep.experiments.runner.experiment import Row, grouped
from safestep.lab.cart_pole import LONGEST
from safestep.records.report import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS = ("o", "v", "s", "D")


def limits_by_rate(rows: Sequence[Row], max_kl: float) -> Figure:
    """Draw medians over seeds as lines, one for each limit, and every seed as a dot."""
    from safestep.plots import style
    from safestep.plots.panel import bare_axes, name_axes, shared_legend, single_figure

    figure = single_figure(style.WIDTH, 1.5 * style.HEIGHT)
    balanced, apart = figure.subplots(2, 1, sharex=True)
    colours = style.palette(row["limit"] for row in rows)
    for place, group in enumerate(grouped(rows, "limit")):
        limit = group[0]["limit"]
        look = {"color": colours[limit], "marker": _MARKERS[place % len(_MARKERS)]}
        for ax, key in ((balanced, "length"), (apart, "kl_most")):
            rates = grouped(sorted(group, key=lambda row: row["factor"]), "factor")
            factors = [one[0]["factor"] * 1.09 ** (place - 1.5) for one in rates]  # beside each other
            medians = [statistics.median(number(row[key]) for row in one) for one in rates]
            ax.plot(factors, medians, **look, lw=1.7, ms=6, mec="white", mew=0.6, label=limit, zorder=3)
            for factor, one in zip(factors, rates, strict=True):
                heights = [number(row[key]) for row in one]
                ax.plot([factor] * len(one), heights, look["marker"], color=look["color"], ms=3, alpha=0.5, zorder=2)
    apart.axhline(max_kl, color=style.INK, lw=1.0, ls=(0, (4, 2)), label="threshold", zorder=1)
    for ax in (balanced, apart):
        bare_axes(ax).set_xscale("log")
    apart.set_yscale("log")
    balanced.set_ylim(0, 1.05 * LONGEST)
    apart.set_xticks(
        sorted({row["factor"] for row in rows}), [f"×{factor:g}" for factor in sorted({row["factor"] for row in rows})]
    )
    apart.minorticks_off()
    name_axes(balanced, "Steps balanced at the end", "", f"of {LONGEST}")
    name_axes(apart, "Largest divergence of an update", "learning rate", "KL, nats a sample")
    shared_legend(figure)
    return figure
