"""protection: whether the cheap ways of measuring r protect as the exact one does, audited exactly on whole runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from safestep.experiments.protection.protection_findings import protection_findings
from safestep.experiments.protection.protection_steps import StepLine, columns, outcome, steps
from safestep.experiments.protection.protection_summary import EXACT, over_methods
from safestep.experiments.protection.protection_witness import Witness
from safestep.experiments.protection.protection_words import WORDS
from safestep.experiments.protection.protection_workloads import WORKLOADS
from safestep.experiments.runner.experiment import Column, Experiment, Record, Row, Run, Words
from safestep.experiments.runner.settings import Settings
from safestep.guard.attach import attach
from safestep.lab.disturbances import DISTURBANCES
from safestep.lab.seeding import seed_everything
from safestep.policy import Cap
from safestep.radius import SoftmaxRadius
from safestep.recording.nonfinite import all_finite
from safestep.records.report import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONTROL = "control"
_CONTROL = 1 + 1e-4
"""A control is capped exactly, at a target this much higher: what differs from the exact cap then is chance."""
METHODS = (EXACT, "probe", "tiered", CONTROL)
_LINES = 44
"""Steps in one record."""
_SECONDS_PER_STEP = 0.02
_HOPELESS = 10.0
"""A held-out loss above this many times ln(classes), the loss of a model that knows nothing, is called diverged."""


@dataclass(frozen=True, kw_only=True)
class ProtectionSettings(Settings):
    """Settings of protection.

    Attributes:
        target: the largest r.
        steps: of a run.
        audit: the share of the steps whose exact r is measured.
        methods: ways of measuring r; "control" is the exact one at a target higher by 10⁻⁴.
        workloads: what is learned, and by which optimizer.
        disturbances: what goes wrong on the way; "none" runs at every rate of a workload, the others at one.
    """

    QUICK: ClassVar[dict[str, Any]] = {
        "steps": 16,
        "workloads": ("digits-momentum", "text"),
        "disturbances": ("none", "rate-x100-1"),
    }

    target: float = 1.0
    steps: int = 264
    audit: float = 1.0
    methods: tuple[str, ...] = METHODS
    workloads: tuple[str, ...] = tuple(WORKLOADS)
    disturbances: tuple[str, ...] = tuple(DISTURBANCES)

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require(1e-6 <= self.target <= 1e6, "target", "a positive number from 1e-6 to 1e6; 1 is the radius")
        self.require_range(1, 10**6, "steps")
        self.require(0 < self.audit <= 1, "audit", "a share of the steps, above 0 and at most 1")
        for key, names in (("methods", METHODS), ("workloads", WORKLOADS), ("disturbances", DISTURBANCES)):
            self.require_names(key, names)


@dataclass(frozen=True, kw_only=True)
class ProtectionExperiment(Experiment[ProtectionSettings]):
    """Every workload at every rate, and disturbed at one, with r measured in every way."""

    words: ClassVar[Words | None] = WORDS

    columns: tuple[Column, ...] = (
        Column("label", "run"),
        Column("diverged", "diverged"),
        Column("share_above_105", "above 1.05 target", ".2%", short="> 1.05"),
        Column("worst", "worst r / target", ".3f", short="worst"),
        Column("final_acc", "accuracy", ".3f", short="acc"),
        Column("final_loss", "loss", ".3f"),
        Column("audited", "audited steps", short="audited"),
        Column("share_capped", "capped", ".1%"),
        Column("share_skipped", "nothing measured", ".1%", short="skipped"),
        Column("capped_median", "capped to", ".3f"),
        Column("needless", "needlessly shortened", short="needless"),
        Column("touched", "inside, yet touched", short="touched"),
    )
    summary_columns: tuple[Column, ...] = (
        Column("label", "r measured by"),
        Column("diverged", "diverged"),
        Column("share_above_105", "above 1.05 target", ".2%", short="> 1.05"),
        Column("worst", "worst r / target", ".3f", short="worst"),
        Column("accuracy_lost", "accuracy lost", ".4f", short="acc lost"),
        Column("loss_gained", "loss gained", ".4f"),
        Column("runs", "runs"),
        Column("audited", "audited steps", short="audited"),
        Column("runs_above", "runs with > 0.5 % above", short="runs > 0.5 %"),
        Column("share_capped", "capped", ".1%"),
        Column("share_skipped", "nothing measured", ".1%", short="skipped"),
        Column("share_needless", "needlessly shortened", ".2%", short="needless"),
        Column("touched", "inside, yet touched", short="touched"),
    )
    summary_always: bool = True
    own_figures: ClassVar[tuple[str, ...]] = ("audited_ratios",)

    def runs(self, settings: ProtectionSettings, seeds: Sequence[int]) -> list[Run]:
        """Return every method on every workload, rate and disturbance, each with every seed."""
        runs = []
        for name, disturbance in itertools.product(settings.workloads, settings.disturbances):
            workload, words = WORKLOADS[name], DISTURBANCES[disturbance].words
            rates = workload.rates if disturbance == "none" else (workload.disturbed_rate,)
            for rate, method, seed in itertools.product(rates, settings.methods, seeds):
                options = {"workload": name, "rate": rate, "disturbance": disturbance, "method": method}
                label = ", ".join(filter(None, (f"{workload.words} {rate:g}", words, method)))
                runs.append(Run(label, seed, options))
        return runs

    def seconds_per_run(self, settings: ProtectionSettings) -> float:
        """Return about how long one run takes on one core."""
        return settings.steps * _SECONDS_PER_STEP

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return what came out, in sentences."""
        return protection_findings(results["summary"])

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return how far beyond the target the audited steps went."""
        from safestep import plots
        from safestep.plots.panel import panel, single_figure

        figure, audited = single_figure(), plots.audited_of(records)
        if not audited:
            return {}
        plots.audited_ratios(audited, target=number(results["settings"]["target"]), ax=panel(figure))
        return {"audited_ratios": figure}

    def execute(self, settings: ProtectionSettings, run: Run) -> Generator[Record, None, Row]:
        """Train once. Runs that differ in the method alone begin alike and meet the same batches."""
        workload, disturbance = WORKLOADS[run.options["workload"]], DISTURBANCES[run.options["disturbance"]]
        method, name = run.options["method"], {"label": run.label, "seed": run.seed, **run.options}
        target = settings.target * (_CONTROL if method == CONTROL else 1.0)
        radius = SoftmaxRadius(method=EXACT if method == CONTROL else method)
        seed_everything(run.seed)
        task = workload.task(run.seed)
        optimizer = workload.optimizer(task.model.parameters(), lr=run.options["rate"])
        lines: list[StepLine] = []
        with (
            Witness(optimizer) as witness,
            attach(task.model, optimizer, radius=radius, policy=Cap(target), history=0) as guard,
        ):
            guard.audit(settings.audit)
            taken = steps(task, optimizer, guard, witness, disturbance, settings.steps, run.seed)
            while piece := list(itertools.islice(taken, _LINES)):
                yield {"kind": "steps", **name, "first_step": len(lines), **columns(piece)}
                lines += piece
        loss, accuracy = task.test()
        finite = all_finite(task.model.parameters()) and all(math.isfinite(line.loss) for line in lines)
        return {
            **name,
            "judged": workload.judged,
            **outcome(lines, target),
            "final_acc": accuracy,
            "final_loss": loss,
            "diverged": not (finite and loss <= _HOPELESS * math.log(task.classes)),
        }

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return what every method comes to, over all its runs and over those of each workload."""
        return over_methods(rows)


experiment = ProtectionExperiment(
    name="protection",
    about="whether the cheap ways of measuring r protect as the exact one does, audited exactly on whole runs",
    settings=ProtectionSettings,
)
