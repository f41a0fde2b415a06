"""The plan of limits: its settings, the runs on tuning seeds, which choose targets, and those on fresh seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from safestep.experiments.limits.limits_statistics import STATISTICS
from safestep.experiments.limits.limits_tasks import OPTIMIZERS, SUBJECTS
from safestep.experiments.runner.experiment import Run
from safestep.experiments.runner.settings import SettingError, Settings
from safestep.lab.seeding import LARGEST_SEED

TUNING, HELD_OUT = "tuning", "held-out"
PLAIN, CAP, PIN, PIN_DECAY = "plain", "cap", "pin", "pin-decay"
POLICIES = (CAP, PIN, PIN_DECAY)


@dataclass(frozen=True, kw_only=True)
class LimitsSettings(Settings):
    """Settings of limits.

    Attributes:
        steps: of a run.
        tasks: what is learned.
        optimizers: by whom.
        statistics: what steps are measured by.
        policies: what is done about it, beside the plain runs that all are compared with.
        rates: peak learning rates of plain and capped runs, in units of the first guess for task and optimizer.
        targets: of the tuning runs, in units of the target that the held-out runs have.
        tuning_seeds: which targets are chosen on; none for held-out runs alone.
    """

    QUICK: ClassVar[dict[str, Any]] = {
        "steps": 10,
        "tasks": ("digits-mlp", "digits-cnn"),
        "optimizers": ("momentum", "adamw"),
        "statistics": ("largest", "curvature"),
        "rates": (1.0, 100.0),
        "targets": (0.5, 1.0),
        "tuning_seeds": (0,),
    }

    steps: int = 300
    tasks: tuple[str, ...] = tuple(SUBJECTS)
    optimizers: tuple[str, ...] = tuple(OPTIMIZERS)
    statistics: tuple[str, ...] = tuple(STATISTICS)
    policies: tuple[str, ...] = POLICIES
    rates: tuple[float, ...] = (0.3, 1.0, 3.0, 30.0, 300.0)
    targets: tuple[float, ...] = (0.5, 1.0, 2.0)
    tuning_seeds: tuple[int, ...] = (0, 1)

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require_range(1, 10**6, "steps")
        known = {"tasks": SUBJECTS, "optimizers": OPTIMIZERS, "statistics": STATISTICS, "policies": POLICIES}
        for key, names in known.items():
            self.require_names(key, tuple(names))
        for key in ("rates", "targets"):
            values = getattr(self, key)
            usable = 0 < len(values) == len(set(values)) and all(1e-6 <= value <= 1e6 for value in values)
            self.require(usable, key, "positive numbers from 1e-6 to 1e6, each once")
        seeds = self.tuning_seeds
        usable = len(set(seeds)) == len(seeds) and all(0 <= seed <= LARGEST_SEED for seed in seeds)
        self.require(usable, "tuning_seeds", f"whole numbers from 0 to {LARGEST_SEED}, each once, or none")


def planned(settings: LimitsSettings, seeds: Sequence[int]) -> list[Run]:
    """Return the runs that choose targets, on seeds of their own, and those on fresh seeds, which have one target each.

    Raises:
        SettingError: for a seed that targets are chosen on.
    """
    if stale := sorted(set(seeds) & set(settings.tuning_seeds)):
        raise SettingError(
            f"seeds {', '.join(map(str, stale))}: expected fresh ones, on which no target is chosen; take others, or "
            "--set tuning_seeds= without them"
        )
    tuned = [name for name in settings.tasks if SUBJECTS[name].tuned]
    return [
        *_runs(settings, TUNING, tuned, settings.targets, settings.tuning_seeds),
        *_runs(settings, HELD_OUT, settings.tasks, (1.0,), seeds),
    ]


def _runs(
    settings: LimitsSettings, role: str, tasks: Sequence[str], targets: Sequence[float], seeds: Sequence[int]
) -> Iterator[Run]:
    for task, optimizer, way in itertools.product(tasks, settings.optimizers, _ways(settings, targets)):
        told = (way["policy"], way["statistic"], way["target"] and f"{way['target']:.3g}")
        rate = way["rate"] and f"×{way['rate']:g}"
        label = f"{role}: {task} {optimizer}, {' '.join(filter(None, (*told, rate)))}"
        for seed in seeds:
            yield Run(label, seed, {"role": role, "task": task, "optimizer": optimizer, **way})


def _ways(settings: LimitsSettings, targets: Sequence[float]) -> list[dict[str, Any]]:
    """Return what one task is trained in by one optimizer: plainly, and by every statistic at every target."""
    ways = [_way(PLAIN, None, None, rate) for rate in settings.rates]
    for policy, name, target in itertools.product(settings.policies, settings.statistics, targets):
        rates = settings.rates if policy == CAP else (None,)
        ways += [_way(policy, name, target * STATISTICS[name].chosen, rate) for rate in rates]
    return ways


def _way(policy: str, statistic: str | None, target: float | None, rate: float | None) -> dict[str, Any]:
    return {"policy": policy, "statistic": statistic, "target": target, "rate": rate}
