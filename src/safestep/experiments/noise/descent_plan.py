"""Settings of noisy-descent, and the descents that it is made of, in the order of its table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from safestep.descent import PUBLISHED_FIRST, Gaussian
from safestep.experiments.runner.settings import Settings
from safestep.schedules import Constant, Exponential, Inverse, Polynomial, Schedule, Staircase

NO_NOISE = "no noise"
"""What the run without noise has for the name of its schedule, which is the constant one."""
SCHEDULES = ("constant", "inverse", "polynomial", "piecewise constant", "exponential")
"""The names of the others, in the order of the table."""


@dataclass(frozen=True, kw_only=True)
class NoisyDescentSettings(Settings):
    """Settings of noisy-descent. The seed of a run is that of its noise, which all schedules share.

    Attributes:
        runs: in each ensemble.
        steps: of every schedule.
        long_steps: of the exponential schedule a second time.
        quiet_steps: of the one run without noise.
        rate: base learning rate, that every schedule multiplies.
        scale: standard deviation of the noise on each component of a gradient.
        batch: the noise is that of the mean over so many gradients.
        beta: of the inverse and the polynomial schedule.
        alpha: exponent of the polynomial one.
        decay: exponent of the exponential one, per step.
        stair: the piecewise constant schedule drops each time ``t`` has grown by so many steps.
        drop: what it multiplies the rate by.
        first: ``t`` of the first step: 2 as in the published runs, 0 as torch counts.
    """

    QUICK: ClassVar[dict[str, Any]] = {"runs": 1000, "long_steps": 200}

    runs: int = 20_000
    steps: int = 50
    long_steps: int = 1000
    quiet_steps: int = 20
    rate: float = 0.1
    scale: float = 1.0
    batch: int = 1
    beta: float = 0.1
    alpha: float = 0.5
    decay: float = 0.1
    stair: int = 20
    drop: float = 0.1
    first: int = PUBLISHED_FIRST

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require_range(2, 10**6, "runs")
        self.require_range(1, 10**5, "steps", "quiet_steps")
        self.require(self.steps < self.long_steps <= 10**5, "long_steps", "more than steps and at most 100000")
        for key in ("rate", "beta", "alpha", "decay"):
            self.require(1e-6 <= getattr(self, key) <= 1e3, key, "a positive number from 1e-6 to 1000")
        self.require(0 <= self.scale <= 1e6, "scale", "a standard deviation from 0 to 1000000")
        self.require_range(1, 10**6, "batch", "stair")
        self.require(0 < self.drop < 1, "drop", "a factor between 0 and 1")
        self.require_range(0, 10**5, "first")


@dataclass(frozen=True)
class Descent:
    """One ensemble of the experiment.

    Attributes:
        label: of its row.
        name: of its schedule.
        schedule: factor of the base rate by ``t``.
        steps: how many are taken.
        runs: in the ensemble.
        noise: on the gradients; None for none.
    """

    label: str
    name: str
    schedule: Schedule
    steps: int
    runs: int
    noise: Gaussian | None


def descents(settings: NoisyDescentSettings) -> Iterator[Descent]:
    """Yield the descents in the order of the table.

    Example:
        >>> [one.label for one in descents(NoisyDescentSettings())][-2:]
        ['exponential, 50 steps', 'exponential, 1000 steps']
    """
    noise = Gaussian(settings.scale, batch=settings.batch)
    yield Descent(NO_NOISE, NO_NOISE, Constant(), settings.quiet_steps, 1, None)
    schedules: tuple[Schedule, ...] = (
        Constant(),
        Inverse(settings.beta),
        Polynomial(settings.beta, settings.alpha),
        Staircase(settings.stair, settings.drop),
    )
    for name, schedule in zip(SCHEDULES, schedules, strict=False):
        yield Descent(name, name, schedule, settings.steps, settings.runs, noise)
    for steps in (settings.steps, settings.long_steps):
        last = SCHEDULES[-1]
        yield Descent(f"{last}, {steps} steps", last, Exponential(settings.decay), steps, settings.runs, noise)
