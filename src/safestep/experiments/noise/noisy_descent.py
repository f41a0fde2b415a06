"""noisy-descent: gradient descent with noise under each schedule, thousands of runs at once, against the exact law.

Source of the runs: "Stochastic Gradient Descent", Dive into Deep Learning (d2l.ai), optimization chapter.
"""

from __future__ import annotations

import statistics
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from torch.optim import SGD

from safestep.descent import PLANE, distance, simulate
from safestep.experiments.noise.descent_figures import CURVES, LOSSES, TRACES, descent_figures
from safestep.experiments.noise.descent_plan import NoisyDescentSettings, descents
from safestep.experiments.noise.descent_records import course_of, row_of
from safestep.experiments.noise.descent_words import WORDS
from safestep.experiments.noise.noise_findings import descent_findings
from safestep.experiments.runner.experiment import Column, Experiment, Record, Row, Run, Words, grouped
from safestep.records.report import number, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RECORDS, _TRACES = 101, 3
_MEANS = ("mean_x1", "mean_x2", "var_x1", "var_x2", "mean_f", "law_mean_x1", "law_mean_f", "mean_distance")
_SECONDS_PER_MEMBER = 1.2e-5
"""About what one run of an average ensemble takes."""


@dataclass(frozen=True, kw_only=True)
class NoisyDescentExperiment(Experiment[NoisyDescentSettings]):
    """An ensemble a schedule, on the plane of the note."""

    own_figures: ClassVar[tuple[str, ...]] = (LOSSES, CURVES, TRACES)
    words: ClassVar[Words | None] = WORDS

    columns: tuple[Column, ...] = (
        Column("label", "schedule"),
        Column("mean_f", "mean f", "#.4g"),
        Column("law_mean_f", "law", "#.4g"),
        Column("worst_z", "SE off", ".2f"),
        Column("steps", "steps"),
        Column("mean_x1", "mean x₁", ".4f"),
        Column("mean_x2", "mean x₂", ".4f"),
        Column("var_x1", "var x₁", "#.3g"),
        Column("var_x2", "var x₂", "#.3g"),
        Column("rate_sum", "Σ η so far", "#.3g", short="Σ η"),
        Column("rate_sum_ever", "Σ η for ever", "#.3g", short="for ever"),
    )
    summary_columns: tuple[Column, ...] = (
        Column("label", "schedule"),
        Column("mean_f", "mean f", "#.4g"),
        Column("law_mean_f", "law", "#.4g"),
        Column("worst_z", "SE off: most", ".2f"),
        Column("worst_z_any", "at any step", ".2f", short="any step"),
        Column("seeds", "seeds"),
        Column("steps", "steps"),
        Column("mean_x1", "mean x₁", ".4f"),
        Column("mean_x2", "mean x₂", ".4f"),
    )

    def runs(self, settings: NoisyDescentSettings, seeds: Sequence[int]) -> list[Run]:
        """Return one ensemble a schedule and seed."""
        return [Run(one.label, seed) for one in descents(settings) for seed in seeds]

    def seconds_per_run(self, settings: NoisyDescentSettings) -> float:
        """Return about how long an average ensemble takes on one core."""
        return _SECONDS_PER_MEMBER * settings.runs

    def execute(self, settings: NoisyDescentSettings, run: Run) -> Generator[Record, None, Row]:
        """Simulate one ensemble and compare it with the law."""
        descent = next(one for one in descents(settings) if one.label == run.label)
        ensemble = simulate(
            PLANE,
            partial(SGD, lr=settings.rate),
            schedule=descent.schedule,
            first=settings.first,
            noise=descent.noise,
            steps=descent.steps,
            runs=descent.runs,
            seed=run.seed,
            records=_RECORDS,
            traces=min(_TRACES, descent.runs),
        )
        name = {"label": run.label, "seed": run.seed, "schedule": descent.name, "steps": descent.steps}
        off = distance(ensemble)
        course = course_of(ensemble, off)
        yield plain({"kind": "course", **name, "first_step": 0, "runs": ensemble.runs, **course})
        yield plain({"kind": "rates", **name, "rate": ensemble.setting.rates().tolist()})
        for run_index, trace in enumerate(ensemble.traces):
            x1, x2 = trace.T.tolist()
            ended = {"x1": x1, "x2": x2, "last_point": ensemble.last_point(run_index)}
            yield plain({"kind": "trace", **name, "run": run_index, **ended})
        return {**name, **row_of(settings, descent, ensemble, off, course)}

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return every schedule over its seeds."""
        return [_over_seeds(group) for group in grouped(rows)]

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return what came out, in sentences."""
        return descent_findings(results["summary"])

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return traces, schedules and losses."""
        return descent_figures(records, results["settings"])


def _over_seeds(rows: Sequence[Row]) -> Row:
    """Return the rows of one label as one: means of means and variances, the largest distances from the law."""
    summary = {
        **{key: rows[0][key] for key in ("label", "schedule", "steps", "last_rate", "rate_sum", "rate_sum_ever")},
        "seeds": len(rows),
        "runs": sum(row["runs"] for row in rows),
        **{key: statistics.fmean(number(row[key]) for row in rows) for key in _MEANS},
        **{key: max(number(row[key]) for row in rows) for key in ("worst_z", "worst_z_any")},
        "comparisons": sum(row["comparisons"] for row in rows),
        "last_point": rows[0]["last_point"],
        "diverged": any(row["diverged"] for row in rows),
    }
    return cast(Row, plain(summary))


experiment = NoisyDescentExperiment(
    name="noisy-descent",
    about="what noise and learning-rate schedules do to gradient descent on a plane, against the exact law",
    settings=NoisyDescentSettings,
)
