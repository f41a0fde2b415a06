"""The figures of noise-floor: floors by learning rate and batch size beside their law, one for each kind of noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from safestep.experiments.noise.floor_plan import WORDS, Kind, law_floor
from safestep.experiments.runner.experiment import Record, grouped
from safestep.records.report import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from safestep.plots import Floor

FLOORS = {noise: f"noise_floor_{noise}" for noise in WORDS}


def floor_figures(records: Sequence[Record], settings: Mapping[str, Any]) -> dict[str, Figure]:
    """Return a figure for each kind of noise that the records hold, by name."""
    from safestep import plots
    from safestep.plots.panel import name_axes, panel, single_figure

    figures: dict[str, Figure] = {}
    for noise, name in FLOORS.items():
        # a batch of all samples has no noise: its floor, 0, has no place on a logarithmic axis
        chosen = [record for record in records if record.get("noise") == noise and number(record["law_floor"]) != 0]
        if chosen:
            floors = [_floor(group) for group in grouped(sorted(chosen, key=lambda record: record["batch"]), "batch")]
            law = partial(law_floor, cast(Kind, noise), scale=settings["scale"], samples=settings["samples"])
            figures[name] = single_figure()
            ax = plots.noise_floor(floors, law=law, ax=panel(figures[name]))
            name_axes(ax, f"Noise floor, {WORDS[noise]}", ax.get_xlabel(), ax.get_ylabel())
    return figures


def _floor(records: Sequence[Record]) -> Floor:
    """Return the floors of one batch size, each the mean over its seeds."""
    from safestep import plots

    groups = grouped(sorted(records, key=lambda record: record["rate"]), "rate")
    return plots.Floor(
        records[0]["batch"],
        [group[0]["rate"] for group in groups],
        [math.fsum(number(record["floor"]) for record in group) / len(group) for group in groups],
        [math.hypot(*(number(record["standard_error"]) for record in group)) / len(group) for group in groups],
        [number(group[0]["law_floor"]) for group in groups],
    )
