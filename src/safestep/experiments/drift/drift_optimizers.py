"""drift-optimizers: whether the throttle protects with every optimizer and batch, and what it costs in calm runs."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from safestep.experiments.drift.drift_findings import optimizers_findings
from safestep.experiments.drift.drift_optimizers_cases import BATCHES, LAWS, OPTIMIZERS, RATES, STUDENTS, rate_of
from safestep.experiments.drift.drift_optimizers_run import DescentStep, DriftCase, descend, outcome_of, target_loss
from safestep.experiments.drift.drift_words import OPTIMIZERS as WORDS
from safestep.experiments.runner.experiment import Column, Experiment, Record, Row, Run, Words
from safestep.experiments.runner.settings import Settings
from safestep.records.report import number, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SECONDS_PER_STEP = 0.004
_PLACE = ("student", "optimizer", "batch", "rate")
"""What tells a case from another, the law aside."""


@dataclass(frozen=True, kw_only=True)
class DriftOptimizersSettings(Settings):
    """Settings of drift-optimizers.

    Attributes:
        gain: the inputs are multiplied by it, suddenly; labels and answers stay.
        chi: the margin that the throttle aims at.
        warm_up: steps before the drift.
        steps: steps after it.
        students: who learns.
        optimizers: what makes the steps.
        batches: "full" for all samples, "32" for batches of 32.
        rates: "quiet", where a run without control is well, and "harsh", where it diverges. Chosen for a gain of 4.
        laws: what limits the steps: nothing, the curvature on the batch, the published secant; or, of classifiers,
            both the curvature on the batch and the softmax radius.
    """

    QUICK: ClassVar[dict[str, Any]] = {"warm_up": 10, "steps": 40, "students": ("linear",), "batches": ("full",)}

    gain: float = 4.0
    chi: float = 1.5
    warm_up: int = 40
    steps: int = 300
    students: tuple[str, ...] = tuple(STUDENTS)
    optimizers: tuple[str, ...] = tuple(OPTIMIZERS)
    batches: tuple[str, ...] = tuple(BATCHES)
    rates: tuple[str, ...] = RATES
    laws: tuple[str, ...] = tuple(LAWS)

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require(0.0 < self.gain <= 1e6, "gain", "a positive number of at most 1e6")
        self.require(0.0 < self.chi < 2.0, "chi", "a margin between 0 and 2, the limit of stability")
        self.require_range(1, 10**6, "warm_up", "steps")
        self.require_names("students", STUDENTS)
        self.require_names("optimizers", OPTIMIZERS)
        self.require_names("batches", BATCHES)
        self.require_names("rates", RATES)
        self.require_names("laws", LAWS)


@dataclass(frozen=True, kw_only=True)
class DriftOptimizersExperiment(Experiment[DriftOptimizersSettings]):
    """Every student with every optimizer and batch, at a quiet and a harsh rate, under every law."""

    words: ClassVar[Words | None] = WORDS

    columns: tuple[Column, ...] = (
        Column("label", "run"),
        Column("diverged", "diverged"),
        Column("final_loss", "final loss", "#.3g"),
        Column("steps_to_target", "steps to target", ".0f", short="steps"),
        Column("first_loss", "first loss", "#.3g"),
        Column("peak_loss", "peak loss", "#.3g"),
        Column("held_share", "held", ".1%"),
        Column("shortened_share", "shortened", ".1%"),
        Column("uphill_share", "proposed uphill", ".1%", short="uphill"),
        Column("statuses", "what became of the steps", short="statuses"),
    )
    summary_columns: tuple[Column, ...] = (
        Column("label", "runs"),
        Column("lost", "diverged"),
        Column("slowdown", "steps, of those without", "#.3g", short="of none"),
        Column("final_loss", "final loss", "#.3g", short="final"),
        Column("steps_to_target", "steps to target", ".0f", short="steps"),
        Column("peak_factor", "peak / first loss", "#.3g", short="peak"),
        Column("seeds", "seeds"),
        Column("held_share", "held", ".1%"),
        Column("shortened_share", "shortened", ".1%"),
        Column("uphill_share", "proposed uphill", ".1%", short="uphill"),
    )
    summary_always: bool = True
    own_figures: ClassVar[tuple[str, ...]] = ("slowdown",)

    def runs(self, settings: DriftOptimizersSettings, seeds: Sequence[int]) -> list[Run]:
        """Return every student, optimizer, batch, rate and law, each with every seed."""
        chosen = (settings.students, settings.optimizers, settings.batches, settings.rates, settings.laws)
        return [
            Run(_label(*place), seed, dict(zip((*_PLACE, "law"), place, strict=True)))
            for place in itertools.product(*chosen)
            if place[-1] != "both" or place[0] == "classifier"
            for seed in seeds
        ]

    def records_per_run(self, settings: DriftOptimizersSettings) -> int:
        """Return how many pieces a run is kept in: one before the drift and one after it."""
        return 2

    def seconds_per_run(self, settings: DriftOptimizersSettings) -> float:
        """Return about how long one run takes on one core."""
        return (settings.warm_up + settings.steps) * _SECONDS_PER_STEP

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return what came out, in sentences."""
        return optimizers_findings(results["summary"])

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return what control costs where nothing needs it."""
        from safestep import plots
        from safestep.plots.panel import panel, single_figure

        figure, rows = single_figure(), plots.slowdowns_of(results.get("summary", []))
        if not rows:
            return {}
        plots.slowdown(rows, ax=panel(figure))
        return {"slowdown": figure}

    def execute(self, settings: DriftOptimizersSettings, run: Run) -> Generator[Record, None, Row]:
        """Train once, through a guard."""
        student, optimizer, batch, rate, law = (run.options[key] for key in (*_PLACE, "law"))
        lr, drift = rate_of(student, optimizer, batch, rate), (settings.gain, settings.warm_up, settings.steps)
        identity = {"label": run.label, "seed": run.seed, **run.options, "lr": lr, "gain": settings.gain}
        descent = descend(DriftCase(student, optimizer, batch, lr, law, settings.chi, *drift), run.seed)
        lines: list[DescentStep] = []
        for count in (settings.warm_up, settings.steps):
            piece = list(itertools.islice(descent, count))
            columns = {
                "loss": [line.loss for line in piece],
                "ratio": [line.ratio for line in piece],
                "scale": [line.scale for line in piece],
            }
            yield {"kind": "descent", **identity, "first_step": len(lines), **columns}
            lines += piece
        return identity | outcome_of(lines, settings.warm_up, target_loss(student, optimizer, batch, *drift))

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return medians over the seeds for every label, and the steps against those without control.

        ``slowdown`` is the median of the steps over that of the same runs without control; nan where these do not get
        there, or where any of them diverges. ``most_slowdown`` is the largest that was asked for.
        """
        labels = dict.fromkeys(row["label"] for row in rows)
        summaries: list[Row] = plain(
            [_summary([row for row in rows if row["label"] == label], rows) for label in labels]
        )
        return summaries


def _summary(chosen: Sequence[Row], rows: Sequence[Row]) -> dict[str, Any]:
    place, seeds = [chosen[0][key] for key in _PLACE], {row["seed"] for row in chosen}
    same = [row for row in rows if [row[key] for key in _PLACE] == place and row["seed"] in seeds]
    free = [row for row in same if row["law"] == "none"]
    steps, usual = _median(chosen, "steps_to_target"), _median(free, "steps_to_target") if free else math.nan
    calm = 0 < usual < math.inf and not any(row["diverged"] for row in free)
    peaks = [number(row["peak_loss"]) / number(row["first_loss"]) for row in chosen]
    medians = ("first_loss", "final_loss", "target_loss", "held_share", "shortened_share", "uphill_share")
    return {
        **{key: chosen[0][key] for key in ("label", *_PLACE, "lr", "gain", "law")},
        "seeds": len(chosen),
        "lost": sum(bool(row["diverged"]) for row in chosen),
        "peak_factor": max(math.inf if math.isnan(peak) else peak for peak in peaks),
        **{key: _median(chosen, key) for key in medians},
        "steps_to_target": steps,
        "slowdown": steps / usual if calm else math.nan,
        "most_slowdown": 1.05 if chosen[0]["optimizer"] == "sgd" else 1.1,
    }


def _median(rows: Sequence[Row], key: str) -> float:
    values = [number(row[key]) for row in rows]
    return statistics.median(math.inf if math.isnan(value) else value for value in values)


def _label(student: str, optimizer: str, batch: str, rate: str, law: str) -> str:
    return f"{student}, {optimizer}, {batch}, {rate} {rate_of(student, optimizer, batch, rate):g}: {law}"


experiment = DriftOptimizersExperiment(
    name="drift-optimizers",
    about="whether the throttle protects with every optimizer and batch size, and what it costs in calm runs",
    settings=DriftOptimizersSettings,
)
