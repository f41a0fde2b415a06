"""An experiment that takes no time: each run counts, and its row is a function of label and seed alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from safestep.experiments.runner.experiment import Column, Experiment, Run
from safestep.experiments.runner.settings import Settings


@dataclass(frozen=True, kw_only=True)
class CountingSettings(Settings):
    length: int = 3
    labels: tuple[str, ...] = ("one", "two")
    rate: float = 0.5
    loud: bool = False


@dataclass(frozen=True, kw_only=True)
class Counting(Experiment[CountingSettings]):
    """Attributes: stop: label, seed and count at which the run is interrupted."""

    name: str = "counting"
    about: str = "counts"
    settings: type[CountingSettings] = CountingSettings
    columns: tuple[Column, ...] = (Column("label", "run"), Column("sum", "sum", ".1f"))
    summary_columns: tuple[Column, ...] = (Column("label", "run"), Column("seeds", "seeds"))
    stop: tuple[str, int, int] | None = None
    error: type[BaseException] = KeyboardInterrupt

    def runs(self, settings, seeds):
        return [Run(label, seed) for label in settings.labels for seed in seeds]

    def seconds_per_run(self, settings):
        return 0.0

    def execute(self, settings, run):
        for count in range(settings.length):
            if self.stop == (*run.key, count):
                raise self.error
            yield {"kind": "count", "label": run.label, "seed": run.seed, "count": count, "odd": math.nan}
        return {"label": run.label, "seed": run.seed, "sum": run.seed * settings.rate, "odd": math.inf}

    def summarise(self, rows):
        labels = dict.fromkeys(row["label"] for row in rows)
        return [{"label": name, "seeds": sum(row["label"] == name for row in rows)} for name in labels]
