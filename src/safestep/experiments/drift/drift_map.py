"""drift-map: which share of the plane of learning rate and drift gain diverges, under each law and none."""

from __future__ import annotations

import math
import statistics
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from safestep.experiments.drift.drift_cells import Carried, carry_out, chosen_cells
from safestep.experiments.drift.drift_laws import LAWS, WORDS, Protocol
from safestep.experiments.drift.drift_plane import Plane, simulate
from safestep.experiments.runner.experiment import Column, Experiment, Record, Row, Run
from safestep.experiments.runner.settings import Settings
from safestep.lab.affine_teacher import AffineTeacher

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RISEN = 1e-3
"""A loss that was larger than at the start by more than this share has risen."""
_CLOSE = 0.01
"""A cell agrees if its verdict does, and its largest loss to this share."""
_SECONDS_PER_STEP, _SECONDS_PER_PLANE = 0.0008, 0.0003
"""About what a guarded step of the student takes, and a step of all cells of a map of 41 by 41."""


@dataclass(frozen=True, kw_only=True)
class DriftMapSettings(Settings):
    """Settings of drift-map.

    Attributes:
        chi: the margin that the throttle aims at; 2 is the limit.
        decades: powers of ten that the learning rates run between.
        gains: that the drift gains run between, in equal ratios.
        side: learning rates and gains in the map.
        steps: of full batches, in each cell.
        limit: a loss above it has diverged.
        data_seed: of the samples; the seed of a run is that of the student's start.
        laws: "none", "secant-0", "secant-1", "secant-2" (the published laws) and "curvature" (the default).
        checks: how many gains and rates a lattice of cells has that are carried out for real besides; 0 for none.
    """

    QUICK: ClassVar[dict[str, Any]] = {"side": 9, "steps": 100, "checks": 2}

    chi: float = 1.0
    decades: tuple[float, float] = (-2.0, 0.3)
    gains: tuple[float, float] = (1.0, 4.0)
    side: int = 41
    steps: int = 1000
    limit: float = 100.0
    data_seed: int = 42
    laws: tuple[str, ...] = LAWS
    checks: int = 3

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require(0 < self.chi < 2, "chi", "a margin between 0 and 2, the limit")
        self.require(-6 <= self.decades[0] < self.decades[1] <= 6, "decades", "two rising numbers from -6 to 6")
        self.require(1e-3 <= self.gains[0] < self.gains[1] <= 1e3, "gains", "two rising numbers from 0.001 to 1000")
        self.require(2 <= self.side <= 1000, "side", "at least 2 and at most 1000")
        self.require(1 <= self.steps <= 10**6, "steps", "at least 1 and at most 1000000")
        self.require(self.limit > 0, "limit", "a positive loss")
        self.require(0 <= self.data_seed < 2**32, "data_seed", "a whole number from 0 to 2^32 - 1")
        usable = len(set(self.laws)) == len(self.laws) > 0 and set(self.laws) <= set(LAWS)
        self.require(usable, "laws", f"each at most once of {', '.join(LAWS)}")
        self.require(self.checks == 0 or 2 <= self.checks <= self.side, "checks", "0, or at least 2 and at most side")

    @property
    def rate_axis(self) -> Tensor:
        """The learning rates, rising."""
        return torch.logspace(*self.decades, self.side, dtype=torch.float64)

    @property
    def gain_axis(self) -> Tensor:
        """The gains, rising."""
        low, high = map(math.log10, self.gains)
        return torch.logspace(low, high, self.side, dtype=torch.float64)

    @property
    def protocol(self) -> Protocol:
        """What every cell has in common."""
        return Protocol(self.chi, self.steps, self.limit)


@dataclass(frozen=True, kw_only=True)
class DriftMapExperiment(Experiment[DriftMapSettings]):
    """Every learning rate at every gain, at once, under each law; some cells for real besides."""

    own_figures: ClassVar[tuple[str, ...]] = ("drift_maps",)
    columns: tuple[Column, ...] = (
        Column("label", "law"),
        Column("share_diverged", "diverged", ".1%"),
        Column("share_beyond", "ηγ²λ > 2", ".1%"),
        Column("share_risen", "loss rose", ".1%"),
        Column("largest_loss", "largest loss", ".3g"),
        Column("checked", "checked"),
        Column("agreed", "agree"),
    )
    summary_columns: tuple[Column, ...] = (
        Column("label", "law"),
        Column("seeds", "starts"),
        Column("least", "diverged: least", ".1%", short="least"),
        Column("median", "median", ".1%"),
        Column("most", "most", ".1%"),
        Column("share_beyond", "ηγ²λ > 2", ".1%"),
        Column("checked", "checked"),
        Column("agreed", "agree"),
    )

    def runs(self, settings: DriftMapSettings, seeds: Sequence[int]) -> list[Run]:
        """Return one run a law and start."""
        return [Run(WORDS[law], seed, {"law": law}) for law in settings.laws for seed in seeds]

    def records_per_run(self, settings: DriftMapSettings) -> int:
        """Return one record a gain; those of the checks come besides."""
        return settings.side

    def seconds_per_run(self, settings: DriftMapSettings) -> float:
        """Return about how long one run takes on one core: nearly all of it is for the checks."""
        checked = settings.checks * (settings.checks + 1) * _SECONDS_PER_STEP
        return settings.steps * (checked + _SECONDS_PER_PLANE * (settings.side / 41) ** 2)

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return the maps that the records hold."""
        from safestep import plots

        maps = plots.drift_maps_of(records)
        return {"drift_maps": plots.drift_maps(maps)} if maps else {}

    def execute(self, settings: DriftMapSettings, run: Run) -> Generator[Record, None, Row]:
        """Compute the plane, then carry out some of its cells."""
        law, name = run.options["law"], {"label": run.label, "law": run.options["law"], "seed": run.seed}
        teacher = AffineTeacher(seed=settings.data_seed)
        student = teacher.student(seed=run.seed)
        rates, gains = settings.rate_axis, settings.gain_axis
        plane = simulate(teacher, student.matrices[0].detach(), rates, gains, law, settings.protocol)
        yield from _rows_of(plane, rates, gains, teacher.lambda_max, name)
        agreed = checked = 0
        cells = chosen_cells(plane.diverged, settings.checks) if settings.checks else []
        for row, column in cells:
            rate, gain = rates[column].item(), gains[row].item()
            found = carry_out(teacher, student, rate, gain, law, settings.protocol)
            agrees = _agrees(found, bool(plane.diverged[row, column]), plane.peak_loss[row, column].item())
            checked, agreed = checked + 1, agreed + agrees
            yield {"kind": "check", **name, "rate": rate, "gain": gain, **asdict(found), "agrees": agrees}
        beyond = gains[:, None].square() * rates * teacher.lambda_max > 2
        calm = plane.peak_loss[~plane.diverged]
        return {
            **name,
            "cells": plane.diverged.numel(),
            "share_diverged": _share(plane.diverged),
            "share_beyond": _share(beyond),
            "share_risen": _share(plane.peak_loss > (1 + _RISEN) * plane.first_loss),
            "largest_loss": calm.max().item() if len(calm) else math.nan,
            "lambda_max": teacher.lambda_max,
            "checked": checked,
            "agreed": agreed,
        }

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return over the starts of each law between what the diverged share lies."""
        groups: dict[str, list[Row]] = {}
        for row in rows:
            groups.setdefault(row["label"], []).append(row)
        return [_over_starts(group) for group in groups.values()]

    def findings(self, rows: Sequence[Row], target: float) -> list[str]:
        """Return what share of the plane each law loses, and how many cells were checked."""
        if not rows:
            return []
        said = [f"{row['label'][:1].upper()}{row['label'][1:]}: {_lost(row)}." for row in self.summarise(rows)]
        checked, agreed = (sum(row[key] for row in rows) for key in ("checked", "agreed"))
        beyond = 100 * rows[0]["share_beyond"]
        said.append(f"Theory without a throttle, ηγ²λ > 2: {beyond:.1f} %.")
        if not checked:
            return [*said, "No cell was carried out for real besides."]
        said.append(
            f"{agreed} of {checked} cells that were carried out for real, by torch.optim.SGD and a guard in float32, "
            f"agree with the map: the same verdict, the largest loss within {100 * _CLOSE:g} %."
        )
        return said


def _rows_of(
    plane: Plane, rates: Tensor, gains: Tensor, lambda_max: float, name: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    for place, gain in enumerate(gains.tolist()):
        yield {
            "kind": "map",
            **name,
            "first_cell": place * len(rates),
            "gain": gain,
            "limit_rate": 2 / (gain**2 * lambda_max),
            "rates": rates.tolist(),
            **{key: getattr(plane, key)[place].tolist() for key in Plane.__dataclass_fields__},
        }


def _agrees(found: Carried, diverged: bool, peak: float) -> bool:
    # beyond the limit a run is stopped, and how far beyond it is has no meaning
    return found.diverged == diverged and (diverged or abs(found.peak_loss - peak) <= _CLOSE * peak)


def _over_starts(rows: Sequence[Row]) -> Row:
    shares = sorted(row["share_diverged"] for row in rows)
    return {
        "label": rows[0]["label"],
        "law": rows[0]["law"],
        "seeds": len(rows),
        "least": shares[0],
        "median": statistics.median(shares),
        "most": shares[-1],
        "share_beyond": rows[0]["share_beyond"],
        "checked": sum(row["checked"] for row in rows),
        "agreed": sum(row["agreed"] for row in rows),
    }


def _lost(row: Row) -> str:
    least, most = (f"{100 * row[key]:.1f}" for key in ("least", "most"))
    share = f"{least} %" if least == most else f"{least} to {most} %, depending on the start,"
    return f"{share} of the plane diverges"


def _share(flags: Tensor) -> float:
    return flags.double().mean().item()


experiment = DriftMapExperiment(
    name="drift-map",
    about="which share of the plane of learning rate and drift gain diverges, without a throttle and under each law",
    settings=DriftMapSettings,
)
