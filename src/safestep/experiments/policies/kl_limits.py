"""policy-optimisation: PPO at rates up to a hundred times too high, plain, stopped early, and under a limit in nats."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from safestep.experiments.policies.kl_limits_figure import limits_by_rate
from safestep.experiments.policies.kl_limits_findings import policy_findings
from safestep.experiments.policies.kl_limits_words import WORDS
from safestep.experiments.runner.experiment import Column, Experiment, Record, Row, Run, Words, grouped
from safestep.experiments.runner.settings import Settings
from safestep.lab.policy_optimisation import LIMITS, Plan, train
from safestep.records.report import number, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LAST = 5
"""Updates at the end of a run over which its outcome is averaged."""


@dataclass(frozen=True, kw_only=True)
class PolicySettings(Settings):
    """Settings of policy-optimisation.

    Attributes:
        rate: Adam's, times 1.
        factors: what the rate is multiplied by.
        max_kl: the threshold of any limit, in nats.
        updates: batches that are gathered.
        limits: what is done about the divergence.
    """

    QUICK: ClassVar[dict[str, Any]] = {"updates": 3, "factors": (1.0, 100.0)}

    rate: float = 3e-3
    factors: tuple[float, ...] = (1.0, 10.0, 100.0)
    max_kl: float = 0.015
    updates: int = 25
    limits: tuple[str, ...] = LIMITS

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require(0 < self.rate <= 1e3, "rate", "a positive number, at most 1000")
        self.require(all(0 < factor <= 1e6 for factor in self.factors), "factors", "positive numbers, at most 1e6")
        self.require(len(set(self.factors)) == len(self.factors) > 0, "factors", "each at most once")
        self.require(0 < self.max_kl <= 10, "max_kl", "a positive number of nats, at most 10")
        self.require_range(1, 10**4, "updates")
        self.require_names("limits", LIMITS)


@dataclass(frozen=True, kw_only=True)
class PolicyExperiment(Experiment[PolicySettings]):
    """Every limit at every rate. Runs of one seed begin alike."""

    words: ClassVar[Words | None] = WORDS
    columns: tuple[Column, ...] = (
        Column("label", "run"),
        Column("length", "steps balanced at the end", ".0f", short="length"),
        Column("kl_most", "largest KL of a batch", "#.3g", short="most"),
        Column("came_out", "came out / limit", ".3f", short="out"),
        Column("mean_length", "over the whole run", ".0f", short="mean"),
        Column("kl_median", "median KL of a batch", "#.3g", short="KL"),
        Column("step_kl_most", "largest KL after a step", "#.3g", short="step"),
        Column("steps", "steps"),
        Column("capped", "shortened", ".1%"),
        Column("held", "held", ".1%"),
        Column("came_out_most", "came out / limit, most", ".3f", short="at most"),
    )
    summary_columns: tuple[Column, ...] = (
        Column("label", "run"),
        Column("length", "steps balanced at the end, median", ".0f", short="length"),
        Column("kl_most", "largest KL of a batch", "#.3g", short="most"),
        Column("came_out", "came out / limit, median", ".3f", short="out"),
        Column("seeds", "seeds"),
        Column("length_least", "least", ".0f"),
        Column("mean_length", "over the whole run", ".0f", short="mean"),
        Column("kl_median", "median KL of a batch", "#.3g", short="KL"),
        Column("step_kl_most", "largest KL after a step", "#.3g", short="step"),
        Column("steps", "steps, median", ".0f", short="steps"),
        Column("capped", "shortened", ".1%"),
        Column("held", "held", ".1%"),
        Column("came_out_most", "came out / limit, most", ".3f", short="at most"),
    )
    own_figures: ClassVar[tuple[str, ...]] = ("limits_by_rate",)

    def runs(self, settings: PolicySettings, seeds: Sequence[int]) -> list[Run]:
        """Return every limit at every rate, each with every seed."""
        return [
            Run(f"{limit} ×{factor:g}", seed, {"limit": limit, "factor": factor})
            for limit, factor, seed in itertools.product(settings.limits, settings.factors, seeds)
        ]

    def seconds_per_run(self, settings: PolicySettings) -> float:
        """Return about how long one run takes on one core."""
        return 0.2 * settings.updates

    def execute(self, settings: PolicySettings, run: Run) -> Generator[Record, None, Row]:
        """Train one policy."""
        limit, factor = run.options["limit"], run.options["factor"]
        name = {"label": run.label, "seed": run.seed, "limit": limit, "factor": factor}
        plan = Plan(rate=settings.rate * factor, limit=limit, max_kl=settings.max_kl, updates=settings.updates)
        updates: list[dict[str, Any]] = []
        for update in train(plan, run.seed):
            yield plain({"kind": "update", **name, "update": len(updates), **update})
            updates.append(update)
        steps = [*itertools.chain.from_iterable(zip(one["step_kl"], one["statuses"], strict=True) for one in updates)]
        lengths = [one["length"] for one in updates if not math.isnan(one["length"])] or [math.nan]
        # what a step was shortened to is predicted to be the limit itself: by Cap(1.0), and no other
        came = [apart / settings.max_kl for apart, status in steps if status == "capped" and limit == "KL limit"]
        row = {
            **name,
            "length": statistics.fmean(lengths[-_LAST:]),
            "mean_length": statistics.fmean(lengths),
            "kl_median": statistics.median(one["kl"] for one in updates),
            "kl_most": max(one["kl"] for one in updates),
            "step_kl_most": max((apart for apart, _ in steps), default=0.0),
            "steps": len(steps),
            "capped": sum(status == "capped" for _, status in steps) / max(1, len(steps)),
            "held": sum(status == "held" for _, status in steps) / max(1, len(steps)),
            "came_out": statistics.median(came) if came else math.nan,
            "came_out_most": max(came, default=math.nan),
        }
        return cast(Row, plain(row))

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return medians over the seeds for every limit and rate, and the worst of any."""
        return [_summary(group) for group in grouped(rows)]

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return what came out, in sentences."""
        return policy_findings(results["summary"], number(results["settings"]["max_kl"]))

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return how well the policies balance, and how far an update moved them, by rate."""
        rows = results["rows"]
        return {"limits_by_rate": limits_by_rate(rows, number(results["settings"]["max_kl"]))} if rows else {}


def _summary(rows: Sequence[Row]) -> Row:
    def values(key: str) -> list[float]:
        return [value for row in rows if not math.isnan(value := number(row[key]))] or [math.nan]

    medians = ("length", "mean_length", "kl_median", "steps", "capped", "held", "came_out")
    summary = {
        **{key: rows[0][key] for key in ("label", "limit", "factor")},
        "seeds": len(rows),
        **{key: statistics.median(values(key)) for key in medians},
        "length_least": min(values("length")),
        **{key: max(values(key)) for key in ("kl_most", "step_kl_most", "came_out_most")},
    }
    return cast(Row, plain(summary))


experiment = PolicyExperiment(
    name="policy-optimisation",
    about="PPO at rates up to a hundred times too high: plain, stopped early, and under a limit in nats",
    settings=PolicySettings,
)
