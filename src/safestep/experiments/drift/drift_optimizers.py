"""drift-optimizers: whether the throttle protects with every optimizer and batch, and what it costs in calm runs."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from safestep.experiments.drift.drift_optimizers_cases import (
    BATCHES,
    CLASSIFIERS,
    LAWS,
    OPTIMIZERS,
    RATES,
    STUDENTS,
    rate_of,
)
from safestep.experiments.drift.drift_optimizers_run import Case, StepLine, descend, outcome, target_loss
from safestep.experiments.drift.drift_optimizers_verdict import findings, verdicts
from safestep.experiments.runner.experiment import Column, Experiment, Record, Row, Run
from safestep.experiments.runner.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SECONDS_PER_STEP = 0.004


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
        self.require(0.0 < self.chi < 2.0, "chi", "a margin in (0, 2); 2 is the limit of stability")
        for key in ("warm_up", "steps"):
            self.require(1 <= getattr(self, key) <= 10**6, key, "at least 1 and at most 1000000")
        names: dict[str, Iterable[str]] = {
            "students": STUDENTS,
            "optimizers": OPTIMIZERS,
            "batches": BATCHES,
            "rates": RATES,
            "laws": LAWS,
        }
        for key, known in names.items():
            chosen = getattr(self, key)
            usable = len(set(chosen)) == len(chosen) > 0 and set(chosen) <= set(known)
            self.require(usable, key, f"each at most once of {', '.join(known)}")


@dataclass(frozen=True, kw_only=True)
class DriftOptimizersExperiment(Experiment[DriftOptimizersSettings]):
    """Every student with every optimizer and batch, at a quiet and a harsh rate, under every law."""

    columns: tuple[Column, ...] = (
        Column("label", "run"),
        Column("diverged", "diverged"),
        Column("first_loss", "first loss", ".3f"),
        Column("peak_loss", "peak loss", ".3f"),
        Column("final_loss", "final loss", ".4f"),
        Column("steps_to_target", "steps to target", ".0f", short="steps"),
        Column("held_share", "held", ".1%"),
        Column("shortened_share", "shortened", ".1%"),
        Column("uphill_share", "proposed uphill", ".1%", short="uphill"),
        Column("statuses", "what became of the steps", short="statuses"),
    )
    summary_columns: tuple[Column, ...] = (
        Column("label", "runs"),
        Column("seeds", "seeds"),
        Column("lost", "diverged"),
        Column("peak_factor", "peak / first loss", ".3f", short="peak"),
        Column("final_loss", "final loss", ".4f", short="final"),
        Column("steps_to_target", "steps to target", ".0f", short="steps"),
        Column("slowdown", "steps, of those without", ".3f", short="of none"),
        Column("held_share", "held", ".1%"),
        Column("shortened_share", "shortened", ".1%"),
        Column("uphill_share", "proposed uphill", ".1%", short="uphill"),
    )
    summary_always: bool = True
    own_figures: ClassVar[tuple[str, ...]] = ("slowdown",)

    def runs(self, settings: DriftOptimizersSettings, seeds: Sequence[int]) -> list[Run]:
        """Return every student, optimizer, batch, rate and law, each with every seed."""
        names = ("student", "optimizer", "batch", "rate", "law")
        chosen = (settings.students, settings.optimizers, settings.batches, settings.rates, settings.laws)
        return [
            Run(label=_label(*place), seed=seed, options=dict(zip(names, place, strict=True)))
            for place in itertools.product(*chosen)
            if place[-1] != "both" or place[0] in CLASSIFIERS
            for seed in seeds
        ]

    def records_per_run(self, settings: DriftOptimizersSettings) -> int:
        """Return how many pieces a run is kept in: one before the drift and one after it."""
        return 2

    def seconds_per_run(self, settings: DriftOptimizersSettings) -> float:
        """Return about how long one run takes on one core."""
        return (settings.warm_up + settings.steps) * _SECONDS_PER_STEP

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
        options = run.options
        where = (options["student"], options["optimizer"], options["batch"])
        lr = rate_of(*where, options["rate"])
        name = {"label": run.label, "seed": run.seed, **options, "lr": lr, "gain": settings.gain}
        case = Case(*where, lr, options["law"], settings.chi, settings.gain, settings.warm_up, settings.steps)
        taken, lines = descend(case, run.seed), list[StepLine]()
        for count in (settings.warm_up, settings.steps):
            piece = list(itertools.islice(taken, count))
            columns = {key: [getattr(line, key) for line in piece] for key in ("loss", "ratio", "scale")}
            yield {"kind": "descent", **name, "first_step": len(lines), **columns}
            lines += piece
        return name | outcome(
            lines, settings.warm_up, target_loss(*where, settings.gain, settings.warm_up, settings.steps)
        )

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return medians over the seeds for every label, and the steps against those without control."""
        return verdicts(rows)

    def findings(self, rows: Sequence[Row], target: float) -> list[str]:
        """Return pass or miss against each number that was to be met."""
        return findings(rows)


def _label(student: str, optimizer: str, batch: str, rate: str, law: str) -> str:
    return f"{student}, {optimizer}, {batch}, {rate} {rate_of(student, optimizer, batch, rate):g}: {law}"


experiment = DriftOptimizersExperiment(
    name="drift-optimizers",
    about="whether the throttle protects with every optimizer and batch size, and what it costs in calm runs",
    settings=DriftOptimizersSettings,
)
