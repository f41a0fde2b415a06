"""Who takes part in the comparisons: plain training, clipping rules, optimizers without a rate, and guards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from safestep.averaging import Averaged
from safestep.experiments.evidence.evidence_tasks import OPTIMIZERS
from safestep.guard.attach import attach
from safestep.guard.guard import Guard
from safestep.lab.rivals.clipping import CLIPPINGS
from safestep.lab.rivals.registry import RIVALS
from safestep.lab.rivals.stepper import AveragedStepper, Stepper
from safestep.lab.tasks import Task
from safestep.policy import Cap, Pin, Policy
from safestep.radius import CurvatureRadius, Radius, default_limit
from safestep.schedules import Constant, DecayAtEnd

PLAIN, DEFAULT = "plain", "safestep"
"""The run that is compared with; the guard of ``attach(model, optimizer)``."""
WITH_RATE = (PLAIN, *CLIPPINGS, DEFAULT)
"""Methods that take an optimizer and its rate as they are."""
FIXED = "safestep-fixed"
"""The same guard with a target that follows no schedule; where somebody asks for it."""
_ABSURD = 1.0
"""The rate of an optimizer whose steps a guard alone decides on: hundreds of times too much for AdamW."""

_AVERAGED = "safestep-averaged"
Guarding = Callable[[int], tuple[Radius, Policy]]
_GUARDS: Mapping[str, Guarding] = {
    "safestep-pin": lambda _: (default_limit(), Pin()),
    "safestep-pin-decay": lambda steps: (default_limit(), Pin(schedule=DecayAtEnd(steps))),
    _AVERAGED: lambda _: (default_limit(), Pin()),
    "safestep-rate-1": lambda _: (default_limit(), Cap(1.0)),
    # the step that minimises the quadratic model of the whole batch along the direction, every time
    "k-fac-rescaling": lambda _: (CurvatureRadius(), Pin(0.5)),
}
"""Guards of AdamW that ask for no rate, from the steps of the run."""
OURS = tuple(name for name in _GUARDS if name.startswith(DEFAULT))
WITHOUT_RATE = (*_GUARDS, *RIVALS)
"""Methods that ask for no rate."""


@dataclass(frozen=True)
class Contestant:
    """Somebody who trains a model.

    Attributes:
        stepper: takes the steps.
        guard: of them, if there is one; to be detached at the end.
    """

    stepper: Stepper
    guard: Guard | None = None


def with_rate(name: str, model: nn.Module, optimizer: str, peak: float) -> Contestant:
    """Return a method of `WITH_RATE`, or the fixed one, around an optimizer of the study at a peak rate."""
    optimizers = OPTIMIZERS[optimizer](model, peak)
    if name in {DEFAULT, FIXED}:
        policy = Cap(1.0, Constant()) if name == FIXED else None
        return Contestant(_stepper(optimizers), attach(model, optimizers, policy=policy, history=1))
    return Contestant(_stepper(optimizers, before=None if name == PLAIN else CLIPPINGS[name](model)))


def without_rate(name: str, task: Task, steps: int) -> Contestant:
    """Return a method of `WITHOUT_RATE` for a run of so many steps."""
    model = task.model
    if name in RIVALS:
        return Contestant(RIVALS[name].start(model, steps, task.epoch))
    radius, policy = _GUARDS[name](steps)
    optimizers = OPTIMIZERS["averaged-adamw" if name == _AVERAGED else "adamw"](model, _ABSURD)
    return Contestant(_stepper(optimizers), attach(model, optimizers, radius=radius, policy=policy, history=1))


def _stepper(optimizers: Sequence[Optimizer], before: Callable[[], None] | None = None) -> Stepper:
    kind = AveragedStepper if isinstance(optimizers[0], Averaged) else Stepper
    return kind(*optimizers, before=before)


def schedule_of(name: str) -> str:
    """Return the schedule that a method of `WITHOUT_RATE` is recommended with."""
    return RIVALS[name].schedule if name in RIVALS else "constant"
