"""The figures of noisy descent: traces over contours, schedules, losses beside their law, and the noise floor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from safestep.experiments.descent_plan import NO_NOISE
from safestep.experiments.floor_plan import WORDS, Kind, law_floor
from safestep.lab.descent import PLANE
from safestep.record import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from safestep.plots import Floor

TRACES, SCHEDULES, LOSSES = "descent_traces", "descent_schedules", "descent_losses"
FLOORS = {noise: f"noise_floor_{noise}" for noise in WORDS}
DESCENTS = (TRACES, SCHEDULES, LOSSES, *FLOORS.values())
"""The figures of noisy descent, in the order of a page."""
_LOW, _HIGH = 1, -2
"""Which of the recorded quantiles are the edges of a band: the quartiles; wider ones would cover each other."""


def descent_figures(results: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Return the figures that the records of noisy-descent and noise-floor hold, by name; of several seeds the first.

    Args:
        results: what results.json holds.
        records: of records.jsonl.
    """
    first = {record["seed"]: None for record in records if record.get("kind") in {"descent", "floor"}}
    if not first:
        return {}
    seed = min(first)
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if record.get("kind") == "floor" or record["seed"] == seed:
            kinds.setdefault(str(record.get("kind")), []).append(record)
    figures = _descents(kinds, results["settings"]) if "descent" in kinds else {}
    return figures | _floors(kinds.get("floor", []), results["settings"])


def _descents(kinds: Mapping[str, Sequence[Mapping[str, Any]]], settings: Mapping[str, Any]) -> dict[str, Figure]:
    from safestep import plots
    from safestep.plots.panel import panel, single_figure

    figures: dict[str, Figure] = {}
    traces = {record["schedule"]: _trace(record) for record in kinds.get("trace", []) if record["run"] == 0}
    # last, so that every schedule has the colour of the other pictures
    traces |= {NO_NOISE: traces.pop(NO_NOISE)} if NO_NOISE in traces else {}
    if traces:
        figures[TRACES] = plots.traces_side_by_side(PLANE.value, traces, minimum=PLANE.minimum, start=PLANE.start)
    steps = min((record["at"][-1] for record in kinds["descent"] if record["schedule"] != NO_NOISE), default=0)
    if curves := _curves(kinds.get("rates", []), settings):
        figures[SCHEDULES] = single_figure()
        plots.schedule_curves(curves, steps, first=settings["first"], ax=panel(figures[SCHEDULES]))
    bands = [
        plots.LossBand(
            record["schedule"],
            record["at"],
            _numbers(record["mean_f"]),
            _numbers(record["quantiles_f"][_LOW]),
            _numbers(record["quantiles_f"][_HIGH]),
            _numbers(record["law_mean_f"]),
        )
        for record in kinds["descent"]
        if record["at"][-1] == steps and record["schedule"] != NO_NOISE
    ]
    if bands:
        figures[LOSSES] = single_figure()
        plots.loss_over_steps(bands, ax=panel(figures[LOSSES]))
    return figures


def _curves(rates: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, Callable[[int], float]]:
    """Return the schedules as functions of t, from the rates that were used."""

    def factor(record: Mapping[str, Any]) -> Callable[[int], float]:
        return lambda t: record["rate"][t - settings["first"]] / settings["rate"]

    return {record["schedule"]: factor(record) for record in rates if record["schedule"] != NO_NOISE}


def _trace(record: Mapping[str, Any]) -> Tensor:
    return torch.tensor([_numbers(record["x1"]), _numbers(record["x2"])], dtype=torch.float64).T


def _floors(records: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, Figure]:
    from safestep import plots
    from safestep.plots.panel import panel, single_figure

    figures: dict[str, Figure] = {}
    for noise, name in FLOORS.items():
        chosen = [record for record in records if record["noise"] == noise]
        batches = sorted({record["batch"] for record in chosen})
        if chosen:
            figures[name] = single_figure()
            floors = [_floor(batch, [record for record in chosen if record["batch"] == batch]) for batch in batches]
            plots.noise_floor(floors, law=_law(cast(Kind, noise), settings), ax=panel(figures[name]))
    return figures


def _law(kind: Kind, settings: Mapping[str, Any]) -> Callable[[float, int], float]:
    return lambda rate, batch: law_floor(kind, batch, rate, settings["scale"], settings["samples"])


def _floor(batch: int, records: Sequence[Mapping[str, Any]]) -> Floor:
    """Return the floors of one batch size, each the mean over its seeds."""
    from safestep import plots

    rates = sorted({record["rate"] for record in records})
    groups = [[record for record in records if record["rate"] == rate] for rate in rates]
    return plots.Floor(
        batch,
        rates,
        [sum(_numbers(record["floor"] for record in group)) / len(group) for group in groups],
        [math.hypot(*_numbers(record["standard_error"] for record in group)) / len(group) for group in groups],
        [number(group[0]["law_floor"]) for group in groups],
    )


def _numbers(values: Iterable[Any]) -> list[float]:
    return [number(value) for value in values]
