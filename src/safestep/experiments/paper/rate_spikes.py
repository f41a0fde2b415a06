"""rate-spikes: the learning rate 10 to 10 000 times too high for one step, and what accuracy is left at the end."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch

from safestep.experiments.evidence.evidence_methods import PLAIN
from safestep.experiments.evidence.evidence_training import LOOKS, train
from safestep.experiments.limits.limits_summary import groups_of
from safestep.experiments.paper.paper_experiment import against
from safestep.experiments.paper.spike_tasks import CAP, CNN, GRADIENT_CAP, METHODS, MODELS, contestant, full_batch
from safestep.experiments.paper.training_words import RATE_SPIKES
from safestep.experiments.runner.experiment import Column, Experiment, Record, Row, Run, Words
from safestep.experiments.runner.settings import Settings
from safestep.lab.disturbances import Disturbance
from safestep.lab.seeding import seed_everything
from safestep.recording.nonfinite import all_finite
from safestep.records.report import number, plain
from safestep.schedules import Constant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TABLE = {"transformer": (0.318, 0.387, 0.953), "mlp-layernorm": (0.446, 0.515, 0.939), CNN: (0.134, 0.103, 0.716)}
PAPER = {
    (architecture, method, 1e4): accuracy
    for architecture, (bare, clipped, capped) in _TABLE.items()
    for method, accuracy in ((PLAIN, bare), ("clip", clipped), (GRADIENT_CAP, capped), (CAP, capped))
}
"""Medians of the paper's Table 1. Its text caps the step, its code by rate times gradient: both are beside it."""


@dataclass(frozen=True, kw_only=True)
class RateSpikesSettings(Settings):
    """Settings of rate-spikes.

    Attributes:
        architectures: what is trained.
        methods: in which ways.
        factors: by which the rate is multiplied for the step after a quarter of the run. The convolutions, of which a
            step costs ten times as much, meet the last one only.
        steps: of a run.
        rate: of Adam.
    """

    QUICK: ClassVar[dict[str, Any]] = {"architectures": tuple(MODELS)[:2], "factors": (10.0, 1e4), "steps": 16}

    architectures: tuple[str, ...] = tuple(MODELS)
    methods: tuple[str, ...] = METHODS
    factors: tuple[float, ...] = (10.0, 1e3, 1e4)
    steps: int = 200
    rate: float = 0.015

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require_names("architectures", tuple(MODELS))
        self.require_names("methods", METHODS)
        self.require_range(LOOKS, 10**6, "steps")
        usable = 0 < len(self.factors) == len(set(self.factors)) and all(1.0 < one <= 1e9 for one in self.factors)
        self.require(usable, "factors", "numbers above 1 and at most 1e9, each once")
        self.require(self.rate > 0.0, "rate", "a positive number")


@dataclass(frozen=True, kw_only=True)
class RateSpikes(Experiment[RateSpikesSettings]):
    """Every architecture by every method through every spike, and once plain without any."""

    columns: tuple[Column, ...] = (
        Column("label", "run"),
        Column("final_acc", "accuracy", ".1%"),
        Column("running_acc", "by running statistics", ".1%", short="running"),
        Column("final_loss", "loss", ".3f"),
        Column("proposed", "r of the spike, proposed", "#.3g", short="r"),
    )
    summary_columns: tuple[Column, ...] = (
        Column("label", "architecture, method, spike"),
        Column("median", "accuracy, median", ".1%", short="median"),
        Column("paper", "paper", ".1%"),
        Column("apart", "standard errors apart", ".1f", short="apart"),
        Column("ours", "mean", ".1%"),
        Column("error", "standard error", ".1%", short="error"),
        Column("running", "by running statistics", ".1%", short="running"),
        Column("proposed", "r of the spike, proposed", "#.3g", short="r"),
        Column("lost", "loss > 10"),
        Column("seeds", "seeds"),
    )
    summary_always: bool = True
    words: ClassVar[Words | None] = RATE_SPIKES
    own_figures: ClassVar[tuple[str, ...]] = ("accuracy_after_spike",)

    def runs(self, settings: RateSpikesSettings, seeds: Sequence[int]) -> list[Run]:
        """Return every run of every seed."""
        found = []
        for one, seed in itertools.product(settings.architectures, seeds):
            factors = settings.factors[-1:] if one == CNN else settings.factors
            for method, factor in ((PLAIN, 1.0), *itertools.product(settings.methods, factors)):
                spike = f"×{factor:g}" if factor > 1.0 else "no spike"
                way = {"architecture": one, "method": method, "factor": factor}
                found.append(Run(f"{one}, {method}, {spike}", seed, way))
        return found

    def seconds_per_run(self, settings: RateSpikesSettings) -> float:
        """Return about how long one run takes on one core."""
        return settings.steps * (0.03 if CNN in settings.architectures else 0.01)

    def execute(self, settings: RateSpikesSettings, run: Run) -> Generator[Record, None, Row]:
        """Train once; runs of an architecture and seed begin alike."""
        name, spike_at = {"label": run.label, "seed": run.seed, **run.options}, settings.steps // 4
        seed_everything(run.seed)
        task = full_batch(run.options["architecture"])
        somebody = contestant(run.options["method"], task, settings.rate)
        spike = Disturbance(words="spike", steps=1, rate_factor=run.options["factor"])
        losses = [line.loss for line in train(task, somebody, Constant(), settings.steps, run.seed, spike)]
        yield cast(Record, plain({"kind": "steps", **name, "loss": losses}))
        (_, running), guard = task.test(), somebody.guard
        if guard:
            guard.detach()
        known = {one.step: one.known_ratio for one in guard.history} if guard and run.options["method"] == CAP else {}
        inputs, labels = task.held_out
        with torch.no_grad():  # in training mode, by the statistics of this batch, as in the paper's code
            right = float((task.model(inputs).argmax(-1) == labels).float().mean())
        loss = losses[-1] if len(losses) == settings.steps and all_finite(task.model.parameters()) else float("nan")
        row = {"final_acc": right, "running_acc": running, "final_loss": loss, "proposed": known.get(spike_at)}
        return cast(Row, plain({**name, **row, "lost": not loss <= 10.0}))

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return what is left over the seeds, by architecture, method and spike, beside the paper's."""
        found: list[Row] = []
        for (one, method, factor), group in groups_of(rows, "architecture", "method", "factor").items():
            right, paper = [number(row["final_acc"]) for row in group], PAPER.get((one, method, factor))
            told = {
                **against(group[0]["label"], right, paper or 0.0),
                "architecture": one, "method": method, "factor": factor,
                "median": statistics.median(right),
                "running": statistics.median(number(row["running_acc"]) for row in group),
                "proposed": statistics.median(number(row["proposed"]) for row in group) if method == CAP else None,
                "lost": sum(row["lost"] for row in group),
            }  # fmt: skip
            found.append(cast(Row, plain({**told, "paper": paper, "apart": told["apart"] if paper else None})))
        return found

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return what is left after the largest spike, by method, beside the paper."""
        rows, told = results["summary"], []
        largest = max(row["factor"] for row in rows)
        for (one,), group in groups_of([row for row in rows if row["factor"] == largest], "architecture").items():
            left = ", ".join(f"{row['method']} {number(row['median']):.0%}" for row in group)
            papers = " / ".join(f"{100 * accuracy:.1f}" for accuracy in _TABLE[one])
            told.append(f"{one} after ×{largest:g}: {left} (paper, ×10000, plain / clip / cap: {papers}%).")
        return told

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return the accuracies at the end."""
        from safestep.experiments.paper.training_figures import dots_by_method

        (figure,) = self.own_figures
        return {figure: dots_by_method(results["rows"], PAPER, "Accuracy after a one-step rate spike")}


experiment = RateSpikes(
    name="rate-spikes",
    about="the learning rate 10 to 10 000 times too high for one step, and what accuracy is left at the end",
    settings=RateSpikesSettings,
)
