"""The figures of noisy descent: traces over contours, schedules, losses beside their law, and the noise floor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from safestep.descent import PLANE
from safestep.experiments.noise.descent_plan import NO_NOISE, SCHEDULES
from safestep.experiments.noise.floor_plan import WORDS, Kind, law_floor
from safestep.records.report import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from safestep.plots import Floor, LossBand

TRACES, CURVES, LOSSES = "descent_traces", "descent_schedules", "descent_losses"
FLOORS = {noise: f"noise_floor_{noise}" for noise in WORDS}
DESCENTS = (CURVES, LOSSES, TRACES, *FLOORS.values())
"""The figures of noisy descent, in the order of a page."""
_LOW, _HIGH = 1, -2
"""Which of the recorded quantiles are the edges of a band: the quartiles; wider ones would cover each other."""


def descent_figures(results: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Return the figures that the records of noisy-descent and noise-floor hold, by name; of several seeds the first.

    Args:
        results: what results.json holds.
        records: of records.jsonl.
    """
    first = {record["seed"]: None for record in records if record.get("kind") in {"course", "floor"}}
    if not first:
        return {}
    seed = min(first)
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if record.get("kind") == "floor" or record["seed"] == seed:
            kinds.setdefault(str(record.get("kind")), []).append(record)
    figures = _descents(kinds, results["settings"]) if "course" in kinds else {}
    return figures | _floors(kinds.get("floor", []), results["settings"])


def _descents(kinds: Mapping[str, Sequence[Mapping[str, Any]]], settings: Mapping[str, Any]) -> dict[str, Figure]:
    from safestep import plots
    from safestep.plots.panel import panel, single_figure

    figures: dict[str, Figure] = {}
    if rates := _by_schedule(kinds.get("rates", []), SCHEDULES):
        figures[CURVES] = single_figure()
        curves = {name: _factor(record["rate"], settings) for name, record in rates.items()}
        steps = min(record["steps"] for record in rates.values())
        plots.schedule_curves(curves, steps, first=settings["first"], ax=panel(figures[CURVES]))
    if ensembles := _by_schedule(kinds["course"], SCHEDULES):
        figures[LOSSES] = single_figure()
        plots.loss_over_steps([_band(record) for record in ensembles.values()], ax=panel(figures[LOSSES]))
    traces = _by_schedule(record for record in kinds.get("trace", []) if record["run"] == 0)
    # the run without noise last, so that every schedule has the colour that it has in the other pictures
    names = {name: name for name in SCHEDULES if name in traces}
    names |= {NO_NOISE: f"{NO_NOISE}, {traces[NO_NOISE]['steps']} steps"} if NO_NOISE in traces else {}
    if names:
        shown = {words: _trace(traces[name]) for name, words in names.items()}
        figures[TRACES] = plots.traces_side_by_side(PLANE.value, shown, minimum=PLANE.minimum, start=PLANE.start)
    return figures


def _by_schedule(
    records: Iterable[Mapping[str, Any]], names: Sequence[str] = (*SCHEDULES, NO_NOISE)
) -> dict[str, Mapping[str, Any]]:
    """Return the shortest descent of every schedule, in the order of the names whatever that of the records."""
    ordered = sorted(records, key=lambda record: record["steps"], reverse=True)
    found = {record["schedule"]: record for record in ordered}
    return {name: found[name] for name in names if name in found}


def _factor(rates: Sequence[float], settings: Mapping[str, Any]) -> Callable[[int], float]:
    """Return a schedule as a function of t, from the rates that were used."""
    return lambda t: rates[t - settings["first"]] / settings["rate"]


def _band(record: Mapping[str, Any]) -> LossBand:
    from safestep import plots

    quantiles = record["quantiles_f"]
    low, high, mean, law = map(_numbers, (quantiles[_LOW], quantiles[_HIGH], record["mean_f"], record["law_mean_f"]))
    return plots.LossBand(record["schedule"], record["at"], mean, low, high, law)


def _trace(record: Mapping[str, Any]) -> Tensor:
    return torch.tensor([_numbers(record["x1"]), _numbers(record["x2"])], dtype=torch.float64).T


def _floors(records: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, Figure]:
    from safestep import plots
    from safestep.plots.panel import panel, single_figure

    figures: dict[str, Figure] = {}
    for noise, name in FLOORS.items():
        # a batch of all samples has no noise: its floor, 0, has no place on a logarithmic axis
        chosen = [record for record in records if record["noise"] == noise and number(record["law_floor"]) != 0]
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
        [math.fsum(_numbers(record["floor"] for record in group)) / len(group) for group in groups],
        [math.hypot(*_numbers(record["standard_error"] for record in group)) / len(group) for group in groups],
        [number(group[0]["law_floor"]) for group in groups],
    )


def _numbers(values: Iterable[Any]) -> list[float]:
    return [number(value) for value in values]
