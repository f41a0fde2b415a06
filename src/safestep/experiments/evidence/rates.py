"""rates: how good training is over eight decades of learning rates, plain, clipped in four ways, and under safestep."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from safestep.experiments.evidence.evidence_experiment import Evidence, EvidenceSettings, run_of
from safestep.experiments.evidence.evidence_methods import DEFAULT, FIXED, PLAIN, WITH_RATE
from safestep.experiments.evidence.evidence_summary import beside_tuned, over_rates
from safestep.experiments.evidence.evidence_tasks import OPTIMIZERS
from safestep.experiments.evidence.evidence_training import SCHEDULES
from safestep.experiments.evidence.evidence_words import RATES
from safestep.experiments.limits.limits_summary import groups_of
from safestep.experiments.report.sentences import by, each
from safestep.experiments.runner.experiment import Column, Record, Row, Run, Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FIGURE = "gap_over_rates"


@dataclass(frozen=True, kw_only=True)
class RatesSettings(EvidenceSettings):
    """Settings of rates.

    Attributes:
        optimizers: by whom.
        methods: in which ways, beside plain training, which always takes part; `safestep-fixed` where it is asked for.
        rates: of every method, in units of the first guess for task and optimizer; warm-up and cosine.
        fine: of plain runs alone, under every schedule: the best of these and the others is what has to be met.
    """

    QUICK: ClassVar[dict[str, Any]] = {
        "steps": 20,
        "tasks": ("digits-mlp",),
        "optimizers": ("adamw",),
        "rates": (1.0, 1000.0),
        "fine": (1.0,),
    }

    optimizers: tuple[str, ...] = tuple(OPTIMIZERS)
    methods: tuple[str, ...] = WITH_RATE[1:]
    rates: tuple[float, ...] = (1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 1e4)
    fine: tuple[float, ...] = (0.1, 0.316, 1.0, 3.16, 10.0)

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require_names("optimizers", tuple(OPTIMIZERS))
        self.require_names("methods", (*WITH_RATE[1:], FIXED))
        self.require_rates("rates")
        self.require_rates("fine")


@dataclass(frozen=True, kw_only=True)
class Rates(Evidence[RatesSettings]):
    """Every task by every optimizer and method at every rate."""

    words: ClassVar[Words | None] = RATES
    own_figures: ClassVar[tuple[str, ...]] = (_FIGURE,)
    summary_columns: tuple[Column, ...] = (
        Column("label", "task, optimizer, method"),
        Column("above", "good from the tuned rate up", ".0%", short="good above"),
        Column("worst", "worst gap there", ".3f", short="worst"),
        Column("decades", "good of all rates", ".0%", short="good of all"),
        Column("mean", "mean gap from the tuned rate up", ".3f", short="mean"),
        Column("hindsight", "good beside hindsight", ".0%", short="hindsight"),
        Column("lost", "lost"),
        Column("runs", "runs"),
        Column("time", "time of a step", ".2f", short="time"),
    )

    def planned(self, settings: RatesSettings, seed: int) -> Iterator[Run]:
        """Return the plain runs under every schedule, and every method's under the cosine."""
        for task, optimizer in itertools.product(settings.tasks, settings.optimizers):
            for plan in SCHEDULES:
                rates = dict.fromkeys((*settings.rates, *settings.fine) if plan == "cosine" else settings.fine)
                for rate in sorted(rates):
                    yield run_of(seed, task, optimizer, PLAIN, rate, plan)
            for method, rate in itertools.product(settings.methods, settings.rates):
                yield run_of(seed, task, optimizer, method, rate, "cosine")

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return over which rates every method is as good as the best plain run."""
        return over_rates(rows)

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return how many of the rates are good, by method."""
        groups = by([row for row in results["summary"] if row["above"] is not None], "method")
        best = "As good as the tuned plain run, of the rates at and above its"
        return [f"{best}: {each(groups, _share('above'))}.", f"Of all rates: {each(groups, _share('decades'))}."]

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return the gap over rates, a panel for every task and optimizer."""
        from safestep import plots

        panels: dict[str, list[plots.GapLine]] = {}
        rows = [row for row in beside_tuned(results["rows"]) if row["schedule"] == "cosine"]
        for (task, optimizer, method), line in groups_of(rows, "task", "optimizer", "method").items():
            points = {rate: statistics.median(row["excess"] for row in group)
                      for (rate,), group in groups_of(line, "rate").items()}  # fmt: skip
            drawn = plots.GapLine(
                "" if method == PLAIN else method, "cap" if method != PLAIN else PLAIN, sorted(points.items())
            )
            panels.setdefault(f"{task} {optimizer}", []).append(drawn)
        for lines in panels.values():  # the one that is asked about lies on top
            lines.sort(key=lambda line: line.limit == DEFAULT)
        return {_FIGURE: plots.gap_panels(panels, x="rate / first guess", ours=DEFAULT, title="Behind the tuned run")}


def _share(key: str) -> Any:
    return lambda rows: f"{sum(row[key] for row in rows) / len(rows):.0%}"


experiment = Rates(
    name="rates",
    about="how good training is over eight decades of learning rates: plain, clipped in four ways, and under safestep",
    settings=RatesSettings,
)
