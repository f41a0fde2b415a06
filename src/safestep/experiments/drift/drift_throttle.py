"""drift-throttle: a calm regression whose inputs drift, without a throttle and under two laws of it.

Source of the protocol: M. Blanco Valentin, ENABOL / kappa, "Experiment 000: One-Layer Global Throttle Sanity Check",
repository manuelblancovalentin/kappa_budgeting.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from safestep.experiments.drift.drift_figures import FIGURES, drift_figures
from safestep.experiments.drift.drift_outcome import outcome
from safestep.experiments.drift.drift_verdict import findings, over_seeds
from safestep.experiments.runner.experiment import Column, Experiment, Record, Row, Run
from safestep.experiments.runner.settings import Settings
from safestep.lab.affine_teacher import AffineTeacher, Loss
from safestep.lab.drift import DriftRun, Law
from safestep.lab.run_history import RunHistory
from safestep.lab.student import Student
from safestep.records.reading import Status
from safestep.tools.diagnostics import FIELDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NONE: Law = "none"
_PARTS = ("A", "warmup", "B", "C")
_ALL, _NEEDED = "all", ("loss", "alpha")
"""The columns that the rows and the first pictures are made of."""
_OF_SHARPNESS = tuple(name for name in FIELDS if name.startswith(("hessian", "stability", "spectral")))
_LINES = 100
"""Steps in one record."""
_SECONDS_PER_STEP = 0.003
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
        sharpness: whether the Hessian is measured at each step; most of what a record costs.
        fields: columns of the records, "all" or some of `safestep.tools.diagnostics.FIELDS`, loss and alpha among them.
    """

    QUICK: ClassVar[dict[str, Any]] = {"calm_epochs": 1, "samples": 200}

    runs: tuple[str, ...] = _PARTS
    laws: tuple[str, ...] = ("secant", "curvature")
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
    fields: tuple[str, ...] = (_ALL,)

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        for key, known in (("runs", _PARTS), ("laws", ("secant", "curvature")), ("fields", (_ALL, *FIELDS))):
            chosen = getattr(self, key)
            usable = len(set(chosen)) == len(chosen) > 0 and set(chosen) <= set(known)
            self.require(usable, key, f"each at most once of {', '.join(known)}")
        enough = self.fields == (_ALL,) or ({*_NEEDED} <= {*self.fields} and _ALL not in self.fields)
        self.require(enough, "fields", f"all, or {' and '.join(_NEEDED)} among them")
        usable = len(set(self.gains)) == len(self.gains) > 0 and all(1e-3 <= abs(gain) <= 1e3 for gain in self.gains)
        self.require(usable, "gains", "numbers from 0.001 to 1000 in size, each once")
        self.require(abs(self.bias) <= 1e3, "bias", "a number from -1000 to 1000")
        self.require(0 < self.chi < 2, "chi", "a margin between 0 and 2, the limit")
        self.require(self.order in {0, 1, 2}, "order", "0, 1 or 2")
        self.require(0 <= self.beta <= 1, "beta", "a share from 0 to 1")
        for key in ("rate", "calm_rate"):
            self.require(1e-6 <= getattr(self, key) <= 1e6, key, "a positive learning rate from 1e-6 to 1e6")
        for key in ("warmup_steps", "drift_steps", "calm_epochs", "batch_size", "samples"):
            self.require(1 <= getattr(self, key) <= 10**6, key, "at least 1 and at most 1000000")
        self.require(self.loss in {"half_mse", "mse"}, "loss", "half_mse or mse")

    @property
    def columns(self) -> list[str]:
        """The fields that are recorded."""
        chosen = FIELDS if self.fields == (_ALL,) else self.fields
        return [name for name in chosen if self.sharpness or name not in _OF_SHARPNESS]


@dataclass(frozen=True, kw_only=True)
class DriftThrottleExperiment(Experiment[DriftThrottleSettings]):
    """A calm run, a warm-up, and after it a drift with and without a throttle."""

    own_figures: ClassVar[tuple[str, ...]] = FIGURES

    columns: tuple[Column, ...] = (
        Column("label", "run"),
        Column("first_loss", "first loss", ".3g"),
        Column("peak_loss", "largest loss", ".3g", short="largest"),
        Column("final_loss", "last loss", ".3g", short="last"),
        Column("alpha_first", "α of step 0", ".3f", short="α 0"),
        Column("alpha_second", "of step 1", ".3f", short="1"),
        Column("alpha_settled", "of step 50", ".3f", short="50"),
        Column("steps_to_1e-4", "steps to 1e-4", short="to 1e-4"),
        Column("steps_above_limit", "steps with αηλ > 2", short="αηλ > 2"),
        Column("diverged", "diverged"),
    )
    summary_columns: tuple[Column, ...] = (
        Column("label", "run"),
        Column("seeds", "seeds"),
        Column("peak_over_first", "largest / first loss: most", ".4g", short="peak / first"),
        Column("highest_rise", "highest loss that rose", ".2g", short="rose at"),
        Column("growth_off", "growth off theory", ".2%", short="growth off"),
        Column("second_off", "second α off χ/(ηλ)", ".2%", short="α 1 off"),
        Column("settled_off", "α of step 50 off", ".2%", short="α 50 off"),
        Column("steps_median", "steps to 1e-4: median", ".4g", short="to 1e-4"),
        Column("steps_range", "range"),
        Column("above_limit_median", "steps with αηλ > 2: median", ".4g", short="αηλ > 2"),
        Column("diverged", "diverged"),
    )

    def runs(self, settings: DriftThrottleSettings, seeds: Sequence[int]) -> list[Run]:
        """Return A, the warm-up, and B and C at every gain, each with every seed."""
        planned: list[tuple[str, dict[str, Any]]] = []
        for part in settings.runs:
            if part in {"A", "warmup"}:
                planned.append(("A" if part == "A" else "warm-up", {"run": part, "law": _NONE, "gain": 1.0}))
                continue
            for gain in settings.gains:
                for law in settings.laws if part == "C" else (_NONE,):
                    label = f"{part} γ={gain:g}{f' {law}' if part == 'C' else ''}"
                    planned.append((label, {"run": part, "law": law, "gain": gain}))
        return [Run(label, seed, options) for label, options in planned for seed in seeds]

    def records_per_run(self, settings: DriftThrottleSettings) -> int:
        """Return how many pieces an average run is kept in, about."""
        return max(1, round(_steps_per_run(settings) / _LINES))

    def seconds_per_run(self, settings: DriftThrottleSettings) -> float:
        """Return about how long an average run takes on one core."""
        return _steps_per_run(settings) * _SECONDS_PER_STEP

    def execute(self, settings: DriftThrottleSettings, run: Run) -> Generator[Record, None, Row]:
        """Train once; B and C begin with the warm-up, which is the same for all of one seed."""
        name = {"label": run.label, "seed": run.seed, **run.options}
        teacher = AffineTeacher(samples=settings.samples, seed=run.seed, loss=cast(Loss, settings.loss))
        student = teacher.student(seed=run.seed)
        if run.options["run"] in {"B", "C"}:
            _train(settings, student, teacher, law=_NONE, steps=settings.warmup_steps, sharpness=False)
            teacher = teacher.drifted(run.options["gain"], settings.bias, relabel=settings.relabel)
        if run.options["run"] == "A":
            rate, history = settings.calm_rate, _calm(settings, student, teacher, run.seed)
        else:
            steps = settings.warmup_steps if run.options["run"] == "warmup" else settings.drift_steps
            rate, history = settings.rate, _train(settings, student, teacher, law=run.options["law"], steps=steps)
        yield from _pieces(history, settings.columns, name)
        losses, alphas = history["loss"], history["alpha"]
        held = sum(report.status is Status.HELD for report in history)
        return {**name, **outcome(losses, alphas, held, teacher, rate, settings.chi)}

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return every label over its seeds."""
        return over_seeds(rows)

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return what follows the drift, and single runs."""
        return drift_figures(results, records)

    def findings(self, rows: Sequence[Row], target: float) -> list[str]:
        """Return how each run ended, and how far it is from theory."""
        return findings(rows)


def _train(
    settings: DriftThrottleSettings, student: Student, teacher: AffineTeacher, *, law: Law, steps: int, **more: Any
) -> RunHistory:
    options = {"sharpness": settings.sharpness, "order": cast(Literal[0, 1, 2], settings.order), **more}
    described = DriftRun(law=law, rate=settings.rate, steps=steps, chi=settings.chi, beta=settings.beta, **options)
    return described.train(student, teacher)


def _calm(settings: DriftThrottleSettings, student: Student, teacher: AffineTeacher, seed: int) -> RunHistory:
    described = DriftRun(
        law=_NONE,
        rate=settings.calm_rate,
        epochs=settings.calm_epochs,
        batch_size=settings.batch_size,
        shuffle=settings.shuffle,
        seed=seed,
        chi=settings.chi,
        beta=settings.beta,
        sharpness=settings.sharpness,
    )
    return described.train(student, teacher)


def _pieces(history: RunHistory, columns: Sequence[str], name: dict[str, Any]) -> Iterator[Record]:
    """Yield a run in records of some steps each, one list per column."""
    values = {column: history[column] for column in columns}
    for first in range(0, len(history), _LINES):
        piece = {column: value[first : first + _LINES] for column, value in values.items()}
        yield {"kind": "drift", **name, "first_step": first, **piece}


def _steps_per_run(settings: DriftThrottleSettings) -> float:
    drifted = len(settings.gains) * (settings.warmup_steps + settings.drift_steps)
    calm = settings.calm_epochs * math.ceil(settings.samples / settings.batch_size)
    each = {"A": (1, calm), "warmup": (1, settings.warmup_steps), "B": (len(settings.gains), drifted)}
    each["C"] = (len(settings.gains) * len(settings.laws), drifted * len(settings.laws))
    chosen = [each[part] for part in settings.runs]
    return sum(steps for _, steps in chosen) / sum(runs for runs, _ in chosen)


experiment = DriftThrottleExperiment(
    name="drift-throttle",
    about="a calm regression whose inputs drift: without a throttle, under the published law and under the default",
    settings=DriftThrottleSettings,
)
