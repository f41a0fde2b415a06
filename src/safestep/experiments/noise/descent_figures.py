"""The figures of noisy-descent: the schedules, losses beside their law, and traces over contours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from safestep.descent import PLANE
from safestep.experiments.noise.descent_plan import NO_NOISE, SCHEDULES
from safestep.experiments.runner.experiment import Record
from safestep.records.report import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from safestep.plots import LossBand

CURVES, LOSSES, TRACES = "descent_schedules", "descent_losses", "descent_traces"
_LOW, _HIGH = 1, -2
"""Which of the recorded quantiles are the edges of a band: the quartiles; wider ones would cover each other."""


def descent_figures(records: Sequence[Record], settings: Mapping[str, Any]) -> dict[str, Figure]:
    """Return the figures that the records hold, by name; of several seeds the first."""
    from safestep import plots
    from safestep.plots.panel import panel, single_figure

    figures: dict[str, Figure] = {}
    rates, courses, traces = (_by_schedule(records, kind) for kind in ("rates", "course", "trace"))
    quiet = traces.pop(NO_NOISE, None)
    if rates:
        curves = {name: _factor(record["rate"], settings) for name, record in rates.items() if name != NO_NOISE}
        figures[CURVES] = single_figure()
        steps = min(rates[name]["steps"] for name in curves)
        plots.schedule_curves(curves, steps, first=settings["first"], ax=panel(figures[CURVES]))
    if courses:
        figures[LOSSES] = single_figure()
        bands = [_band(record) for name, record in courses.items() if name != NO_NOISE]
        plots.loss_over_steps(bands, ax=panel(figures[LOSSES]))
    shown = {name: _trace(record) for name, record in traces.items()}
    if quiet is not None:  # last, so that every schedule has the colour that it has in the other figures
        shown[f"{NO_NOISE}, {quiet['steps']} steps"] = _trace(quiet)
    if shown:
        figures[TRACES] = plots.traces_side_by_side(PLANE.value, shown, minimum=PLANE.minimum, start=PLANE.start)
    return figures


def _by_schedule(records: Sequence[Record], kind: str) -> dict[str, Record]:
    """Return a record of each schedule, of the first seed, the first run and the shortest descent."""
    chosen = [record for record in records if record.get("kind") == kind and record.get("run", 0) == 0]
    chosen.sort(key=lambda record: (record["seed"], record["steps"]))
    first = {record["schedule"]: record for record in reversed(chosen)}
    return {name: first[name] for name in (*SCHEDULES, NO_NOISE) if name in first}


def _factor(rates: Sequence[float], settings: Mapping[str, Any]) -> Callable[[int], float]:
    """Return a schedule as a function of t, from the rates that were used."""
    return lambda t: rates[t - settings["first"]] / settings["rate"]


def _band(record: Record) -> LossBand:
    from safestep import plots

    quantiles = record["quantiles_f"]
    columns = (record["mean_f"], quantiles[_LOW], quantiles[_HIGH], record["law_mean_f"])
    mean, low, high, law = ([number(value) for value in column] for column in columns)
    return plots.LossBand(record["schedule"], record["at"], mean, low, high, law)


def _trace(record: Record) -> Tensor:
    points = [[number(value) for value in record[key]] for key in ("x1", "x2")]
    return torch.tensor(points, dtype=torch.float64).T
