"""spikes: what a rate, labels or inputs that go wrong in mid-run cost, and how soon a run recovers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from safestep.experiments.evidence.evidence_experiment import Evidence, EvidenceSettings, run_of
from safestep.experiments.evidence.evidence_figures import dots
from safestep.experiments.evidence.evidence_methods import PLAIN, WITH_RATE
from safestep.experiments.evidence.evidence_summary import after_disturbances
from safestep.experiments.evidence.evidence_words import SPIKES
from safestep.experiments.report.sentences import by, count, each
from safestep.experiments.runner.experiment import Column, Record, Row, Run, Words
from safestep.lab.disturbances import DISTURBANCES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FIGURE = "gaps_after_disturbances"
WRONG = tuple(name for name, disturbance in DISTURBANCES.items() if disturbance.steps)


@dataclass(frozen=True, kw_only=True)
class SpikesSettings(EvidenceSettings):
    """Settings of spikes.

    Attributes:
        methods: in which ways, beside plain training, which always takes part.
        disturbances: what goes wrong after a quarter of the run.
        rate: of AdamW, in units of the first guess.
    """

    QUICK: ClassVar[dict[str, Any]] = {"steps": 80, "tasks": ("digits-mlp",), "disturbances": ("rate-x100-1",)}

    methods: tuple[str, ...] = WITH_RATE[1:]
    disturbances: tuple[str, ...] = WRONG
    rate: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require_names("methods", WITH_RATE[1:])
        self.require_names("disturbances", WRONG)
        self.require(self.rate > 0.0, "rate", "a positive number")


@dataclass(frozen=True, kw_only=True)
class Spikes(Evidence[SpikesSettings]):
    """Every task by AdamW and every method through every disturbance, and once by plain AdamW without any."""

    words: ClassVar[Words | None] = SPIKES
    own_figures: ClassVar[tuple[str, ...]] = (_FIGURE,)
    tunes: ClassVar[bool] = False
    summary_columns: tuple[Column, ...] = (
        Column("label", "task, method, disturbance"),
        Column("median", "gap, median seed", ".3f", short="gap"),
        Column("worst", "worst seed", ".3f", short="worst"),
        Column("recovery", "steps to recover", short="steps back"),
        Column("recovered", "recovered", ".0%"),
        Column("lost", "lost"),
        Column("runs", "runs"),
        Column("time", "time of a step", ".2f", short="time"),
    )

    def planned(self, settings: SpikesSettings, seed: int) -> Iterator[Run]:
        """Return the undisturbed run, and all others."""
        for task in settings.tasks:
            yield run_of(seed, task, "adamw", PLAIN, settings.rate, "cosine")
            for method, wrong in itertools.product((PLAIN, *settings.methods), settings.disturbances):
                yield run_of(seed, task, "adamw", method, settings.rate, "cosine", wrong)

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return gaps and recovery of every method."""
        return after_disturbances(rows)

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return how many runs are lost and how many recover, by method."""
        groups = by(results["summary"], "method")
        back = each(groups, lambda rows: f"{sum(row['recovered'] for row in rows) / len(rows):.0%}")
        return [f"Recovered: {back}.", f"Lost: {each(groups, count('lost', of='runs'))}."] if groups else []

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return every disturbed run's gap, a panel for every disturbance."""
        return {_FIGURE: dots(results["rows"], "wrong", "After a disturbance", names=DISTURBANCES)}


experiment = Spikes(
    name="spikes",
    about="what a rate, labels or inputs that go wrong in mid-run cost, and how soon a run recovers",
    settings=SpikesSettings,
)
