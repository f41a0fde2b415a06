"""drift-map: which share of the plane of learning rate and drift gain diverges, under each law and none."""

from __future__ import annotations

import math
import statistics
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from safestep.experiments.drift.drift_findings import map_findings
from safestep.experiments.drift.drift_plane import CURVATURE, LAWS, NONE, SECANT, Protocol, simulate
from safestep.experiments.drift.drift_words import MAP
from safestep.experiments.runner.experiment import Column, Experiment, Record, Row, Run, Words
from safestep.experiments.runner.settings import Settings
from safestep.lab.affine_teacher import AffineTeacher

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LABELS = {
    NONE: "no throttle",
    **{law: f"secant, order {order}" for law, order in SECANT.items()},
    CURVATURE: "curvature on the batch",
}
_RISEN = 1e-3
"""A loss that was larger than at the start by more than this share has risen."""
_SECONDS_PER_STEP = 0.0003
"""About what a step of all cells of a map of 41 by 41 takes."""


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
    """

    QUICK: ClassVar[dict[str, Any]] = {"side": 9, "steps": 100}

    chi: float = 1.0
    decades: tuple[float, float] = (-2.0, 0.3)
    gains: tuple[float, float] = (1.0, 4.0)
    side: int = 41
    steps: int = 1000
    limit: float = 100.0
    data_seed: int = 42
    laws: tuple[str, ...] = LAWS

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require_names("laws", LAWS)
        self.require_range(1, 10**6, "steps")
        self.require(0.0 < self.chi < 2.0, "chi", "a margin between 0 and 2, the limit of stability")
        self.require(-6 <= self.decades[0] < self.decades[1] <= 6, "decades", "two rising numbers from -6 to 6")
        self.require(1e-3 <= self.gains[0] < self.gains[1] <= 1e3, "gains", "two rising numbers from 0.001 to 1000")
        self.require(2 <= self.side <= 1000, "side", "at least 2 and at most 1000")
        self.require(self.limit > 0, "limit", "a positive loss")
        self.require(0 <= self.data_seed < 2**32, "data_seed", "a whole number from 0 to 2^32 - 1")

    @property
    def rate_axis(self) -> Tensor:
        """The learning rates, rising."""
        return torch.logspace(*self.decades, self.side, dtype=torch.float64)

    @property
    def gain_axis(self) -> Tensor:
        """The gains, rising."""
        low, high = self.gains
        return torch.logspace(math.log10(low), math.log10(high), self.side, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class DriftMapExperiment(Experiment[DriftMapSettings]):
    """Every learning rate at every gain, at once, under each law."""

    words: ClassVar[Words | None] = MAP
    own_figures: ClassVar[tuple[str, ...]] = ("drift_maps",)

    columns: tuple[Column, ...] = (
        Column("label", "law"),
        Column("share_diverged", "diverged", ".1%"),
        Column("share_beyond", "ηγ²λ > 2", ".1%"),
        Column("share_risen", "loss rose", ".1%"),
        Column("largest_loss", "largest loss", "#.3g"),
    )
    summary_columns: tuple[Column, ...] = (
        Column("label", "law"),
        Column("median", "diverged: median", ".1%", short="median"),
        Column("least", "least", ".1%"),
        Column("most", "most", ".1%"),
        Column("share_beyond", "ηγ²λ > 2", ".1%"),
        Column("seeds", "starts"),
    )

    def runs(self, settings: DriftMapSettings, seeds: Sequence[int]) -> list[Run]:
        """Return one run a law and start."""
        return [Run(_LABELS[law], seed, {"law": law}) for law in settings.laws for seed in seeds]

    def records_per_run(self, settings: DriftMapSettings) -> int:
        """Return one record a gain."""
        return settings.side

    def seconds_per_run(self, settings: DriftMapSettings) -> float:
        """Return about how long one run takes on one core."""
        return settings.steps * _SECONDS_PER_STEP * (settings.side / 41) ** 2

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return what came out, in sentences."""
        return map_findings(results["rows"])

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return the maps that the records hold."""
        from safestep import plots

        maps = plots.drift_maps_of(records)
        return {"drift_maps": plots.drift_maps(maps)} if maps else {}

    def execute(self, settings: DriftMapSettings, run: Run) -> Generator[Record, None, Row]:
        """Compute the plane, and yield it gain by gain."""
        law = run.options["law"]
        identity = {"label": run.label, "law": law, "seed": run.seed}
        protocol = Protocol(settings.chi, settings.steps, settings.limit)
        teacher = AffineTeacher(seed=settings.data_seed)
        student = teacher.student(seed=run.seed)
        rates, gains = settings.rate_axis, settings.gain_axis
        plane = simulate(teacher, student.matrices[0].detach(), rates, gains, law, protocol)
        columns = asdict(plane)
        for place, gain in enumerate(gains.tolist()):
            yield {
                "kind": "map",
                **identity,
                "first_cell": place * len(rates),
                "gain": gain,
                "limit_rate": 2 / (gain**2 * teacher.lambda_max),
                "rates": rates.tolist(),
                **{name: values[place].tolist() for name, values in columns.items()},
            }
        calm = plane.peak_loss[~plane.diverged]
        return {
            **identity,
            "cells": plane.diverged.numel(),
            "share_diverged": _share(plane.diverged),
            "share_beyond": _share(gains[:, None].square() * rates * teacher.lambda_max > 2),
            "share_risen": _share(plane.peak_loss > (1 + _RISEN) * plane.first_loss),
            "largest_loss": calm.max().item() if len(calm) else math.nan,
            "lambda_max": teacher.lambda_max,
        }

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return over the starts of each law between what the diverged share lies."""
        labels = dict.fromkeys(row["label"] for row in rows)
        return [_over_starts([row for row in rows if row["label"] == label]) for label in labels]


def _over_starts(rows: Sequence[Row]) -> Row:
    shares = [row["share_diverged"] for row in rows]
    return {
        **{key: rows[0][key] for key in ("label", "law", "share_beyond")},
        "seeds": len(rows),
        "least": min(shares),
        "median": statistics.median(shares),
        "most": max(shares),
    }


def _share(flags: Tensor) -> float:
    return flags.double().mean().item()


experiment = DriftMapExperiment(
    name="drift-map",
    about="which share of the plane of learning rate and drift gain diverges, without a throttle and under each law",
    settings=DriftMapSettings,
)
