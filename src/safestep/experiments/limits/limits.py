"""limits: which limit on the step makes any learning rate as good as the best tuned one, or none necessary."""

from __future__ import annotations

import contextlib
import itertools
import statistics
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from safestep.experiments.limits.limits_figures import OVER_RATES, OVER_TARGETS, limits_figures
from safestep.experiments.limits.limits_findings import limits_findings
from safestep.experiments.limits.limits_plan import CAP, PLAIN, LimitsSettings, planned
from safestep.experiments.limits.limits_statistics import STATISTICS
from safestep.experiments.limits.limits_steps import policy_of, schedule, steps
from safestep.experiments.limits.limits_summary import over_limits
from safestep.experiments.limits.limits_tasks import OPTIMIZERS, SUBJECTS
from safestep.experiments.limits.limits_words import WORDS
from safestep.experiments.runner.experiment import Column, Experiment, Record, Row, Run, Words
from safestep.guard.attach import attach
from safestep.guard.guard import Guard
from safestep.lab.seeding import seed_everything
from safestep.recording.nonfinite import all_finite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINES = 50
"""Steps in one record."""
_SECONDS_PER_STEP = 0.03


@dataclass(frozen=True, kw_only=True)
class LimitsExperiment(Experiment[LimitsSettings]):
    """Every task by every optimizer: plain at every rate, capped at every rate, and pinned without one."""

    words: ClassVar[Words | None] = WORDS

    columns: tuple[Column, ...] = (
        Column("label", "run"),
        Column("lost", "lost"),
        Column("final_acc", "accuracy", ".3f", short="acc"),
        Column("final_loss", "loss", ".3f"),
        Column("role", "role"),
        Column("shortened", "shortened", ".1%"),
        Column("held", "held or undone", ".1%", short="held"),
        Column("median_ratio", "median r", ".3f"),
    )
    summary_columns: tuple[Column, ...] = (
        Column("label", "role, task and limit"),
        Column("lost", "lost"),
        Column("within", "within allowed", ".0%", short="within"),
        Column("rates_worst", "any rate: worst gap", ".3f", short="rates: worst"),
        Column("rates_at", "at", short="at"),
        Column("rates_mean", "mean gap", ".3f", short="mean"),
        Column("pin_worst", "no rate: worst gap", ".3f", short="pin: worst"),
        Column("pin_at", "by", short="by"),
        Column("pin_mean", "mean gap", ".3f", short="mean"),
        Column("decay_worst", "with decay: worst gap", ".3f", short="decay: worst"),
        Column("decay_mean", "mean gap", ".3f", short="mean"),
        Column("runs", "runs"),
        Column("best", "best in tuning", short="best"),
    )
    summary_always: bool = True
    own_figures: ClassVar[tuple[str, ...]] = (OVER_RATES, OVER_TARGETS)

    def runs(self, settings: LimitsSettings, seeds: Sequence[int]) -> list[Run]:
        """Return the tuning runs, on seeds of their own, and the held-out runs on these seeds."""
        return planned(settings, seeds)

    def seconds_per_run(self, settings: LimitsSettings) -> float:
        """Return about how long one run takes on one core."""
        return settings.steps * _SECONDS_PER_STEP

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return what came out, in sentences."""
        return limits_findings(results["summary"])

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return the gaps over rates and over targets."""
        return limits_figures(results["rows"])

    def execute(self, settings: LimitsSettings, run: Run) -> Generator[Record, None, Row]:
        """Train once. Runs of a task, optimizer and seed begin alike and meet the same batches."""
        name, policy = {"label": run.label, "seed": run.seed, **run.options}, run.options["policy"]
        subject, rate = SUBJECTS[run.options["task"]], run.options["rate"]
        seed_everything(run.seed)
        task = subject.task(run.seed)
        peak = 1.0 if rate is None else rate * subject.rates[run.options["optimizer"]]
        optimizers = OPTIMIZERS[run.options["optimizer"]](task.model, peak)
        rates = schedule(settings.steps, tuned=policy in {PLAIN, CAP})
        watched: contextlib.AbstractContextManager[Guard | None] = contextlib.nullcontext()
        if policy != PLAIN:
            radius = STATISTICS[run.options["statistic"]].radius
            limit = policy_of(policy, run.options["target"], settings.steps)
            watched = attach(task.model, optimizers, radius=radius, policy=limit, history=1)
        lines: list[tuple[float, float, float]] = []
        with watched as guard:
            taken = steps(task, optimizers, guard, rates, settings.steps, run.seed)
            while piece := list(itertools.islice(taken, _LINES)):
                losses, ratios, scales = map(list, zip(*piece, strict=True))
                yield {"kind": "steps", **name, "first_step": len(lines), "loss": losses, "ratio": ratios,
                       "scale": scales}  # fmt: skip
                lines += piece
        loss, accuracy = task.test()
        return {
            **name,
            "peak_lr": peak,
            "judged": subject.judged,
            "final_loss": loss,
            "final_acc": accuracy,
            "steps": len(lines),
            "shortened": sum(0.0 < scale < 1.0 for _, _, scale in lines) / settings.steps,
            "held": sum(scale == 0.0 for _, _, scale in lines) / settings.steps,
            "median_ratio": statistics.median(ratio for _, ratio, _ in lines) if lines and policy != PLAIN else None,
            "lost": len(lines) < settings.steps or not all_finite(task.model.parameters()),
        }

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return what every limit comes to in every task, on tuning runs and on held-out ones."""
        return over_limits(rows)


experiment = LimitsExperiment(
    name="limits",
    about="which limit on the step makes any learning rate as good as the best tuned one, or none necessary",
    settings=LimitsSettings,
)
