"""What the three comparisons have in common: how one run is carried out, its row, and the seeds that may be used."""

from __future__ import annotations

import itertools
import statistics
from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from safestep.experiments.evidence.evidence_methods import FIXED, PLAIN, WITH_RATE, Contestant, with_rate, without_rate
from safestep.experiments.evidence.evidence_tasks import SMALL, SUBJECTS, first_rate
from safestep.experiments.evidence.evidence_training import LOOKS, Line, recovery, schedule, train
from safestep.experiments.limits.limits_plan import HELD_OUT, TUNING
from safestep.experiments.runner.experiment import Column, Experiment, Record, Row, Run
from safestep.experiments.runner.settings import SettingError, Settings
from safestep.lab.disturbances import DISTURBANCES
from safestep.lab.seeding import seed_everything
from safestep.lab.tasks import Task
from safestep.recording.nonfinite import all_finite

CHOSEN_ON = (0, 1)
"""Seeds on which the default limit was chosen, and on which plain runs are tuned: nothing is reported on them."""
_LINES = 50
"""Steps in one record."""
_SECONDS_PER_STEP = 0.03


@dataclass(frozen=True, kw_only=True)
class EvidenceSettings(Settings):
    """Settings of every comparison.

    Attributes:
        steps: of a run.
        tasks: what is learned.
    """

    steps: int = 300
    tasks: tuple[str, ...] = tuple(SMALL)

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require_range(LOOKS, 10**6, "steps")
        self.require_names("tasks", tuple(SUBJECTS))

    def require_rates(self, key: str) -> None:
        """Raise SettingError unless a setting holds learning rates."""
        rates = getattr(self, key)
        usable = 0 < len(rates) == len(set(rates)) and all(1e-9 <= rate <= 1e9 for rate in rates)
        self.require(usable, key, "positive numbers from 1e-9 to 1e9, each once")


S = TypeVar("S", bound=EvidenceSettings)


def run_of(
    seed: int, task: str, optimizer: str, method: str, rate: float | None, plan: str, wrong: str = "none"
) -> Run:
    """Return a run: a task by an optimizer and a method, at a multiple of the first rate, under a schedule.

    Args:
        seed: of weights, split and batches.
        task: what is learned.
        optimizer: by which; what `WITHOUT_RATE` has an optimizer of its own is compared with it.
        method: of `WITH_RATE`, or of `WITHOUT_RATE` where there is no rate.
        rate: in units of `first_rate`, or None.
        plan: name of the schedule.
        wrong: name of the disturbance.
    """
    told = [f"{task} {optimizer}", method, *([] if rate is None else [f"{plan} ×{rate:.3g}"])]
    label = ", ".join([*told, *([] if wrong == "none" else [DISTURBANCES[wrong].words])])
    options = {"task": task, "optimizer": optimizer, "method": method, "rate": rate, "schedule": plan, "wrong": wrong}
    policy = "plain, disturbed" if method == PLAIN and wrong != "none" else method
    role = TUNING if seed in CHOSEN_ON else HELD_OUT
    prefix = f"{TUNING}: " if role == TUNING else ""
    return Run(prefix + label, seed, {**options, "role": role, "policy": policy})


@dataclass(frozen=True, kw_only=True)
class Evidence(Experiment[S]):
    """A comparison: somebody trains a task, is looked at ten times, and is held against the best plain run."""

    columns: tuple[Column, ...] = (
        Column("label", "run"),
        Column("lost", "lost"),
        Column("final_acc", "accuracy", ".3f", short="acc"),
        Column("final_loss", "loss", ".3f"),
        Column("shortened", "shortened", ".1%"),
        Column("held", "held or undone", ".1%", short="held"),
        Column("milliseconds", "ms a step", ".1f", short="ms"),
    )
    summary_always: bool = True
    tunes: ClassVar[bool] = True
    """Whether plain runs of several rates and schedules are to be told apart first."""

    def runs(self, settings: S, seeds: Sequence[int]) -> list[Run]:
        """Return the plain runs of the tuning seeds, and every run of these seeds, which have to be others."""
        if stale := sorted(set(seeds) & set(CHOSEN_ON)):
            raise SettingError(
                f"seeds {', '.join(map(str, stale))}: expected others; the default limit was chosen on "
                f"{' and '.join(map(str, CHOSEN_ON))}, and is not judged by them"
            )
        tried = [run for seed in CHOSEN_ON if self.tunes for run in self.planned(settings, seed)]
        tuning = [run for run in tried if run.options["policy"] == PLAIN]
        return [*tuning, *(run for seed in seeds for run in self.planned(settings, seed))]

    @abstractmethod
    def planned(self, settings: S, seed: int) -> Iterator[Run]:
        """Return the runs of one seed."""

    def seconds_per_run(self, settings: S) -> float:
        """Return about how long one run takes on one core."""
        return settings.steps * _SECONDS_PER_STEP

    def execute(self, settings: S, run: Run) -> Generator[Record, None, Row]:
        """Train once. Runs of a task and seed begin alike and meet the same batches."""
        options, steps = run.options, settings.steps
        name = {"label": run.label, "seed": run.seed, **options}
        subject = SUBJECTS[options["task"]]
        seed_everything(run.seed)
        task = subject.task(run.seed)
        contestant = _contestant(options, task, steps)
        plan, lines = schedule(options["schedule"], steps), list[Line]()
        taken = train(task, contestant, plan, steps, run.seed, DISTURBANCES[options["wrong"]])
        while piece := list(itertools.islice(taken, _LINES)):
            yield {"kind": "steps", **name, "first_step": len(lines), "loss": [line.loss for line in piece],
                   "scale": [line.scale for line in piece]}  # fmt: skip
            lines += piece
        with contestant.stepper.judged():
            loss, accuracy = task.test()
            finite = all_finite(task.model.parameters())
        if contestant.guard:
            contestant.guard.detach()
        return {
            **name,
            "judged": subject.judged,
            "final_loss": loss,
            "final_acc": accuracy,
            "steps": len(lines),
            "course": [line.held_out[subject.judged == "accuracy"] for line in lines if line.held_out],
            "recovery": recovery([line.loss for line in lines], DISTURBANCES[options["wrong"]], steps),
            "shortened": sum(0.0 < line.scale < 1.0 for line in lines) / steps,
            "held": sum(line.scale == 0.0 for line in lines) / steps,
            "milliseconds": 1e3 * statistics.median(line.seconds for line in lines) if lines else None,
            "lost": len(lines) < steps or not finite,
        }


def _contestant(options: Mapping[str, Any], task: Task, steps: int) -> Contestant:
    if options["method"] not in (*WITH_RATE, FIXED):
        return without_rate(options["method"], task, steps)
    peak = options["rate"] * first_rate(options["task"], options["optimizer"])
    return with_rate(options["method"], task.model, options["optimizer"], peak)
