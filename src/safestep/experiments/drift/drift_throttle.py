"""drift-throttle: a calm regression whose inputs drift, without a throttle and under two laws of it.

Source of the protocol: M. Blanco Valentin, ENABOL / kappa, "Experiment 000: One-Layer Global Throttle Sanity Check",
repository manuelblancovalentin/kappa_budgeting.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from safestep.experiments.drift.drift_figures import FIGURES, drift_figures
from safestep.experiments.drift.drift_findings import throttle_findings
from safestep.experiments.drift.drift_outcome import outcome, over_seeds
from safestep.experiments.drift.drift_words import THROTTLE
from safestep.experiments.runner.experiment import Column, Experiment, Record, Row, Run, Words
from safestep.experiments.runner.settings import Settings
from safestep.lab.affine_teacher import AffineTeacher, Loss
from safestep.lab.drift import DriftRun, Law
from safestep.policy.throttle import Order
from safestep.radius import SecantCurvature
from safestep.records.reading import Status
from safestep.tools.diagnostics import FIELDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PARTS, _LAWS = ("A", "warmup", "B", "C"), ("secant", "curvature")
_NEEDED = ("loss", "alpha")
"""The columns that the rows and the first pictures are made of."""
_LINES = 100
"""Most steps in one record."""
_SECONDS_PER_STEP = 0.004
"""About what an instrumented step takes."""


@dataclass(frozen=True, kw_only=True)
class DriftThrottleSettings(Settings):
    """Settings of drift-throttle. The seed of a run is that of the samples and of the student's start.

    Attributes:
        runs: "A" (small rate, small batches, no drift), "warmup" (large rate, full batches), "B" (warmed up, then
            drifted, no throttle), "C" (the same, throttled).
        laws: of the throttle in C, "secant" and "curvature".
        gains: of the drift, each one B and one C a law.
        bias: of the drift, added to every input.
        relabel: whether the answers drift along; without, they are kept.
        chi: the margin that the throttle aims at; 2 is the limit.
        order: of the throttle, 0, 1 or 2.
        beta: share of the newest secant curvature in its running mean.
        rate: learning rate of warm-up, B and C.
        warmup_steps: with full batches, before the drift.
        drift_steps: with full batches, after it.
        calm_rate: learning rate of A.
        calm_epochs: of A.
        batch_size: of A.
        shuffle: whether A deals its batches out anew each epoch.
        samples: of the teacher.
        loss: "half_mse" or "mse".
        sharpness: whether the Hessian is measured at each step.
        fields: columns of the records, "all" or some of `safestep.tools.diagnostics.FIELDS`, loss and alpha among them.
    """

    QUICK: ClassVar[dict[str, Any]] = {"calm_epochs": 1, "samples": 200}

    runs: tuple[str, ...] = _PARTS
    laws: tuple[str, ...] = _LAWS
    gains: tuple[float, ...] = (4.0,)
    bias: float = 0.0
    relabel: bool = False
    chi: float = 1.5
    order: int = 0
    beta: float = 0.05
    rate: float = 0.5
    warmup_steps: int = 20
    drift_steps: int = 100
    calm_rate: float = 0.05
    calm_epochs: int = 100
    batch_size: int = 32
    shuffle: bool = True
    samples: int = 1000
    loss: str = "half_mse"
    sharpness: bool = True
    fields: tuple[str, ...] = ("all",)

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require_names("runs", _PARTS)
        self.require_names("laws", _LAWS)
        self.require_names("fields", ("all", *FIELDS))
        self.require_range(1, 10**6, "warmup_steps", "drift_steps", "calm_epochs", "batch_size", "samples")
        self.require(0.0 < self.chi < 2.0, "chi", "a margin between 0 and 2, the limit of stability")
        enough = self.fields == ("all",) or ({*_NEEDED} <= {*self.fields} and "all" not in self.fields)
        self.require(enough, "fields", f"all, or {' and '.join(_NEEDED)} among them")
        usable = len(set(self.gains)) == len(self.gains) > 0 and all(1e-3 <= abs(gain) <= 1e3 for gain in self.gains)
        self.require(usable, "gains", "numbers from 0.001 to 1000 in size, each once")
        self.require(abs(self.bias) <= 1e3, "bias", "a number from -1000 to 1000")
        self.require(self.order in {0, 1, 2}, "order", "0, 1 or 2")
        self.require(0 <= self.beta <= 1, "beta", "a share from 0 to 1")
        self.require(1e-6 <= self.rate <= 1e6, "rate", "a positive learning rate from 1e-6 to 1e6")
        self.require(1e-6 <= self.calm_rate <= 1e6, "calm_rate", "a positive learning rate from 1e-6 to 1e6")
        self.require(self.loss in {"half_mse", "mse"}, "loss", "half_mse or mse")

    @property
    def columns(self) -> list[str]:
        """The fields that are recorded."""
        chosen = FIELDS if self.fields == ("all",) else self.fields
        return [name for name in chosen if self.sharpness or not name.startswith(("hessian", "stability", "spectral"))]

    def training(self, law: Law = "none", **options: Any) -> DriftRun:
        """Return how a student is trained; without a throttle no column needs more than the cheapest radius."""
        radius = SecantCurvature(self.beta) if law == "none" else None
        order = cast(Order, self.order)
        usual = {"rate": self.rate, "sharpness": self.sharpness}
        return DriftRun(law=law, radius=radius, chi=self.chi, beta=self.beta, order=order, **{**usual, **options})


@dataclass(frozen=True, kw_only=True)
class DriftThrottleExperiment(Experiment[DriftThrottleSettings]):
    """A calm run, a warm-up, and after it a drift with and without a throttle."""

    own_figures: ClassVar[tuple[str, ...]] = FIGURES
    words: ClassVar[Words | None] = THROTTLE

    columns: tuple[Column, ...] = (
        Column("label", "run"),
        Column("diverged", "diverged"),
        Column("peak_loss", "largest loss", "#.3g", short="largest"),
        Column("final_loss", "last loss", "#.3g", short="last"),
        Column("steps_to_1e-4", "steps to 1e-4", short="to 1e-4"),
        Column("first_loss", "first loss", "#.3g"),
        Column("alpha_first", "α of step 0", ".3f", short="α 0"),
        Column("alpha_second", "of step 1", ".3f", short="1"),
        Column("alpha_settled", "of step 50", ".3f", short="50"),
        Column("steps_above_limit", "steps with αηλ > 2", short="αηλ > 2"),
    )
    summary_columns: tuple[Column, ...] = (
        Column("label", "run"),
        Column("diverged", "diverged"),
        Column("peak_over_first", "largest / first loss: most", "#.4g", short="peak / first"),
        Column("steps_median", "steps to 1e-4: median", ".4g", short="to 1e-4"),
        Column("steps_range", "range"),
        Column("seeds", "seeds"),
        Column("highest_rise", "highest loss that rose", "#.2g", short="rose at"),
        Column("growth_off", "growth off theory", ".2%", short="growth off"),
        Column("second_off", "second α off χ/(ηλ)", ".2%", short="α 1 off"),
        Column("settled_off", "α of step 50 off", ".2%", short="α 50 off"),
        Column("above_limit_median", "steps with αηλ > 2: median", ".4g", short="αηλ > 2"),
    )

    def runs(self, settings: DriftThrottleSettings, seeds: Sequence[int]) -> list[Run]:
        """Return A, the warm-up, and B and C at every gain, each with every seed."""
        planned: dict[str, dict[str, Any]] = {}
        for part in settings.runs:
            if part in {"A", "warmup"}:
                planned["A" if part == "A" else "warm-up"] = {"run": part, "law": "none", "gain": 1.0}
            elif part == "B":
                planned |= {f"B γ={gain:g}": {"run": "B", "law": "none", "gain": gain} for gain in settings.gains}
            else:
                planned |= {
                    f"C γ={gain:g} {law}": {"run": "C", "law": law, "gain": gain}
                    for gain in settings.gains
                    for law in settings.laws
                }
        return [Run(label, seed, options) for label, options in planned.items() for seed in seeds]

    def records_per_run(self, settings: DriftThrottleSettings) -> int:
        """Return how many pieces an average run is kept in, about."""
        return max(1, round(self._mean_steps(settings) / _LINES))

    def seconds_per_run(self, settings: DriftThrottleSettings) -> float:
        """Return about how long an average run takes on one core."""
        return self._mean_steps(settings) * _SECONDS_PER_STEP

    def _mean_steps(self, settings: DriftThrottleSettings) -> float:
        calm = settings.calm_epochs * math.ceil(settings.samples / settings.batch_size)
        steps = {"A": calm, "warmup": settings.warmup_steps}
        drifted = settings.warmup_steps + settings.drift_steps
        return statistics.fmean(steps.get(run.options["run"], drifted) for run in self.runs(settings, [0]))

    def execute(self, settings: DriftThrottleSettings, run: Run) -> Generator[Record, None, Row]:
        """Train once; B and C begin with the warm-up, which is the same for all of one seed."""
        identity = {"label": run.label, "seed": run.seed, **run.options}
        teacher = AffineTeacher(samples=settings.samples, seed=run.seed, loss=cast(Loss, settings.loss))
        student = teacher.student(seed=run.seed)
        training = settings.training(run.options["law"], steps=settings.drift_steps)
        if run.options["run"] == "A":
            training = settings.training(
                rate=settings.calm_rate,
                epochs=settings.calm_epochs,
                batch_size=settings.batch_size,
                shuffle=settings.shuffle,
                seed=run.seed,
            )
        elif run.options["run"] == "warmup":
            training = settings.training(steps=settings.warmup_steps)
        else:
            settings.training(steps=settings.warmup_steps, sharpness=False).train(student, teacher)
            teacher = teacher.drifted(run.options["gain"], settings.bias, relabel=settings.relabel)
        history = training.train(student, teacher)
        columns, first = history.columns(), 0
        for end, report in enumerate(history, start=1):
            # a record holds steps in a row: what moved nothing has no report
            if end == len(history) or end - first == _LINES or history[end].step != report.step + 1:
                piece = {name: columns[name][first:end] for name in settings.columns}
                yield {"kind": "drift", **identity, "first_step": history[first].step, **piece}
                first = end
        held = sum(report.status is Status.HELD for report in history)
        losses, alphas = columns["loss"], columns["alpha"]
        return {**identity, **outcome(losses, alphas, held, teacher, training.rate, settings.chi)}

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return every label over its seeds."""
        return over_seeds(rows)

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return what came out, in sentences."""
        return throttle_findings(results["rows"])

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return what follows the drift, and single runs."""
        return drift_figures(results, records)


experiment = DriftThrottleExperiment(
    name="drift-throttle",
    about="a calm regression whose inputs drift: without a throttle, under the published law and under the default",
    settings=DriftThrottleSettings,
)
