"""no-rate: optimizers that ask for no learning rate, and safestep's pin, beside the best of many tuned plain runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from safestep.experiments.evidence.evidence_experiment import Evidence, EvidenceSettings, run_of
from safestep.experiments.evidence.evidence_figures import dots
from safestep.experiments.evidence.evidence_methods import PLAIN, WITHOUT_RATE, schedule_of
from safestep.experiments.evidence.evidence_summary import TUNED, without_rates
from safestep.experiments.evidence.evidence_training import SCHEDULES
from safestep.experiments.evidence.evidence_words import NO_RATE
from safestep.experiments.limits.limits_summary import ALLOWED, groups_of
from safestep.experiments.runner.experiment import Column, Record, Row, Run, Words
from safestep.records.report import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FIGURE = "gaps_without_rate"


@dataclass(frozen=True, kw_only=True)
class NoRateSettings(EvidenceSettings):
    """Settings of no-rate.

    Attributes:
        methods: who takes part.
        rates: of the plain AdamW runs that everybody is compared with the best of, in units of the first guess.
    """

    QUICK: ClassVar[dict[str, Any]] = {
        "steps": 20,
        "tasks": ("digits-mlp",),
        "methods": ("safestep-pin", "prodigy", "schedule-free"),
        "rates": (1.0,),
    }

    methods: tuple[str, ...] = WITHOUT_RATE
    rates: tuple[float, ...] = (0.1, 0.316, 1.0, 3.16, 10.0)

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require_names("methods", WITHOUT_RATE)
        self.require_rates("rates")


@dataclass(frozen=True, kw_only=True)
class NoRate(Evidence[NoRateSettings]):
    """Every task by everybody once, and by plain AdamW at every rate under every schedule."""

    words: ClassVar[Words | None] = NO_RATE
    own_figures: ClassVar[tuple[str, ...]] = (_FIGURE,)
    summary_columns: tuple[Column, ...] = (
        Column("label", "task, method"),
        Column("median", "gap, median seed", ".3f", short="gap"),
        Column("worst", "worst seed", ".3f", short="worst"),
        Column("best", "best seed", ".3f", short="best"),
        Column("target", "part of the run to the target", ".0%", short="to target"),
        Column("time", "time of a step", ".2f", short="time"),
        Column("lost", "lost"),
        Column("runs", "runs"),
    )

    def planned(self, settings: NoRateSettings, seed: int) -> Iterator[Run]:
        """Return the plain runs, and one of everybody."""
        for task in settings.tasks:
            for plan, rate in itertools.product(SCHEDULES, settings.rates):
                yield run_of(seed, task, "adamw", PLAIN, rate, plan)
            for method in settings.methods:
                yield run_of(seed, task, "adamw", method, None, schedule_of(method))

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return the gaps of everybody in every task."""
        return without_rates(rows)

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return who is best in each task, and in how many everybody is as good as the tuned run."""
        rows = [row for row in results["summary"] if row["method"] != TUNED]
        tasks = groups_of(rows, "task")
        best = [f"{', '.join(row['method'] for row in _best(group))} on {task}" for (task,), group in tasks.items()]
        good = {
            method: sum(number(row["median"]) <= ALLOWED[row["judged"]] for row in group)
            for (method,), group in groups_of(rows, "method").items()
        }
        told = ", ".join(f"{method} {count}" for method, count in sorted(good.items(), key=lambda item: -item[1]))
        return [
            f"Best of {len(good)} without a rate: {'; '.join(best)}.",
            f"Tasks of {len(tasks)} on which the median run is as good as the tuned one: {told}.",
        ]

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return every run's gap, a panel for every task."""
        return {_FIGURE: dots(results["rows"], "task", "Without a rate")}


def _best(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the best median, which several may have: accuracies come in steps."""
    least = min(number(row["median"]) for row in rows)
    return [row for row in rows if math.isclose(number(row["median"]), least, abs_tol=1e-6)]


experiment = NoRate(
    name="no-rate",
    about="optimizers that ask for no learning rate, and safestep's pin, beside the best of many tuned plain runs",
    settings=NoRateSettings,
)
