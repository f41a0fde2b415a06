"""noise-floor: where noisy gradient descent at a constant rate settles, by rate and batch size, against the law."""

from __future__ import annotations

import math
import statistics
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch.optim import SGD

from safestep.descent import Ensemble, distance, simulate
from safestep.experiments.noise.floor_figures import FLOORS, floor_figures
from safestep.experiments.noise.floor_plan import Cell, NoiseFloorSettings, cells
from safestep.experiments.noise.floor_words import WORDS
from safestep.experiments.noise.noise_findings import floor_findings
from safestep.experiments.runner.experiment import Column, Experiment, Record, Row, Run, Words, grouped
from safestep.records.report import number, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RECORDS = 2
_SECONDS_PER_MEMBER = 8e-5
"""About what one run of an average ensemble takes."""


@dataclass(frozen=True, kw_only=True)
class NoiseFloorExperiment(Experiment[NoiseFloorSettings]):
    """An ensemble for each noise, batch size and rate, run until it has forgotten where it began."""

    own_figures: ClassVar[tuple[str, ...]] = tuple(FLOORS.values())
    words: ClassVar[Words | None] = WORDS

    columns: tuple[Column, ...] = (
        Column("label", "noise, batch and rate"),
        Column("diverged", "diverged"),
        Column("floor", "floor", "#.4g"),
        Column("law_floor", "law", "#.4g"),
        Column("steps", "steps"),
        Column("standard_error", "standard error", "#.2g", short="SE"),
        Column("floor_z", "SE off", ".2f"),
        Column("worst_z", "worst of five", ".2f", short="of five"),
    )
    summary_columns: tuple[Column, ...] = (
        Column("label", "noise and batch"),
        Column("slope", "floor / η at the smallest η", "#.4g", short="floor / η"),
        Column("law_slope", "law", "#.4g"),
        Column("diverged_from", "runs diverge from η", "g", short="diverges"),
        Column("last_rate", "largest η with a floor", "g", short="largest η"),
        Column("last_floor", "its floor", "#.4g"),
        Column("last_law", "law", "#.4g"),
        Column("worst_floor_z", "SE off: most", ".2f", short="SE off"),
    )
    summary_always: bool = True

    def runs(self, settings: NoiseFloorSettings, seeds: Sequence[int]) -> list[Run]:
        """Return one ensemble a noise, batch size, rate and seed."""
        return [Run(cell.label, seed) for cell in cells(settings) for seed in seeds]

    def seconds_per_run(self, settings: NoiseFloorSettings) -> float:
        """Return about how long an average ensemble takes on one core."""
        return _SECONDS_PER_MEMBER * settings.runs

    def execute(self, settings: NoiseFloorSettings, run: Run) -> Generator[Record, None, Row]:
        """Simulate one ensemble, and compare where it ends with the law."""
        cell = next(one for one in cells(settings) if one.label == run.label)
        ensemble = simulate(
            cell.objective,
            partial(SGD, lr=cell.rate),
            noise=cell.noise,
            steps=cell.steps,
            runs=settings.runs,
            seed=cell.seed(run.seed),
            records=_RECORDS,
        )
        row: Row = plain({"label": run.label, "seed": run.seed, **_compared(cell, ensemble)})
        yield {"kind": "floor", "first_step": 0, **row}
        return row

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return one line a noise and batch size, over its rates and seeds."""
        return [_over_rates(group) for group in grouped(rows, "series")]

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return what came out, in sentences."""
        return floor_findings(results["summary"])

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return the floors."""
        return floor_figures(records, results["settings"])


def _compared(cell: Cell, ensemble: Ensemble) -> dict[str, Any]:
    """Return where an ensemble ended beside the law; floors are heights above the minimum of f."""
    objective, found, off = cell.objective, ensemble.moments, distance(ensemble)
    bottom = objective.value(torch.tensor([objective.minimum], dtype=torch.float64)).item()
    floor, law_floor = found.loss[-1].item() - bottom, cell.law_floor
    error = math.sqrt(found.loss_variance[-1].item() / ensemble.runs)
    return {
        "noise": cell.kind,
        "series": cell.series,
        "batch": cell.batch,
        "rate": cell.rate,
        "steps": cell.steps,
        "runs": ensemble.runs,
        "floor": floor,
        "law_floor": law_floor,
        "standard_error": error,
        "floor_z": (floor - law_floor) / error if error > 0 and 0 < law_floor < math.inf else None,
        "law_at_end": off.law.loss[-1].item() - bottom,
        "worst_z": off.worst[-1].item(),
        "lost": ensemble.lost,
        "diverged": bool(ensemble.lost),
    }


def _over_rates(rows: Sequence[Row]) -> Row:
    """Return the rows of one noise and batch size as one: the slope at the smallest rate, the floor at the largest.

    Floors are means over the seeds. None where there is no such rate.
    """
    by_rate = sorted(grouped(rows, "rate"), key=lambda group: number(group[0]["rate"]))
    settled = [group for group in by_rate if math.isfinite(number(group[0]["law_floor"]))]
    lost = [group[0]["rate"] for group in by_rate if any(row["diverged"] for row in group)]
    off = [abs(number(row["floor_z"])) for group in settled for row in group if row["floor_z"] is not None]
    summary: dict[str, Any] = {
        "label": rows[0]["series"],
        "noise": rows[0]["noise"],
        "batch": rows[0]["batch"],
        "ensembles": len(rows),
        "worst_floor_z": max(off, default=None),
        "diverged_from": lost[0] if lost else None,
    }
    if settled:
        first, last = settled[0], settled[-1]
        summary |= {
            "first_rate": first[0]["rate"],
            "slope": _mean_floor(first) / first[0]["rate"],
            "law_slope": number(first[0]["law_floor"]) / first[0]["rate"],
            "last_rate": last[0]["rate"],
            "last_floor": _mean_floor(last),
            "last_law": last[0]["law_floor"],
        }
    return cast(Row, plain(summary))


def _mean_floor(rows: Sequence[Row]) -> float:
    return statistics.fmean(number(row["floor"]) for row in rows)


experiment = NoiseFloorExperiment(
    name="noise-floor",
    about="where noisy gradient descent at a constant rate settles, by learning rate and batch size, against the law",
    settings=NoiseFloorSettings,
)
