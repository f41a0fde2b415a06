"""One run of the comparisons: the same weights, batches and evaluation for everybody, and what it comes to."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from safestep.errors import PoisonedOptimizerError
from safestep.experiments.evidence.evidence_methods import Contestant
from safestep.lab.disturbances import Disturbance
from safestep.lab.tasks import Task
from safestep.schedules import Constant, Cosine, DecayAtEnd, Schedule, WarmUp

_WARM_UP = 0.1
"""Share of a run until the peak of a cosine."""
LOOKS = 10
"""How often a run is evaluated on what is held out."""
_WINDOW = 10
"""Steps whose median loss counts."""
SCHEDULES = ("constant", "cosine", "linear")


def schedule(name: str, steps: int) -> Schedule:
    """Return the rate of every step over the peak.

    Example:
        >>> [round(schedule("cosine", 20)(step), 2) for step in (0, 1, 2, 10, 19)]
        [0.5, 0.99, 0.98, 0.5, 0.01]
        >>> [schedule("linear", 4)(step) for step in range(4)]
        [1.0, 0.75, 0.5, 0.25]
    """
    if name == "cosine":
        return WarmUp(math.ceil(_WARM_UP * steps)) * Cosine(steps)
    return DecayAtEnd(steps, 1.0) if name == "linear" else Constant()


@dataclass(frozen=True)
class Line:
    """One step: the loss of its batch before it, what its guard made of it (1 without one), and what it took.

    Attributes:
        loss: in nats.
        scale: of the step.
        seconds: of the processor for the step, the forward and backward included: other work on the machine counts less
            than it does in time on the clock.
        held_out: loss in nats and accuracy in [0, 1] after the step, where the run was evaluated.
    """

    loss: float
    scale: float
    seconds: float
    held_out: tuple[float, float] | None


def train(
    task: Task, contestant: Contestant, rates: Schedule, steps: int, seed: int, disturbance: Disturbance
) -> Iterator[Line]:
    """Train, and yield every step; the run ends early where its loss is not finite or its optimizer's state is lost.

    The seed is that of the order of the batches, and of what a disturbance draws.
    """
    stepper, guard = contestant.stepper, contestant.guard
    batches = task.batches(disturbance.batch_size or task.batch_size, torch.Generator().manual_seed(seed))
    dealt = torch.Generator().manual_seed(seed)
    groups = [(group, group["lr"]) for optimizer in stepper.optimizers for group in optimizer.param_groups]
    looks = {math.ceil(steps * look / LOOKS) for look in range(1, LOOKS + 1)}
    task.model.train()
    for step in range(steps):
        wrong = disturbance.at(step, steps)
        inputs, labels = next(batches)
        labels = wrong.labels(labels, dealt)
        for group, peak in groups:
            group["lr"] = peak * rates(step) * wrong.rate_factor
        started = time.process_time()
        try:
            with _denormals_as_zero():
                loss = stepper.step(lambda: task.loss(inputs, labels, wrong.input_factor))  # noqa: B023 (used at once)
        except PoisonedOptimizerError:
            return
        seconds = time.process_time() - started
        if not math.isfinite(loss):
            return
        held_out = None
        if step + 1 in looks:
            with stepper.judged():
                held_out = task.test()
        yield Line(loss, guard.last.scale if guard and guard.last else 1.0, seconds, held_out)


@contextmanager
def _denormals_as_zero() -> Iterator[None]:
    """Take numbers below 1e-38 for 0: a recurrent network that a rate has saturated is ten times slower by them."""
    before = float(torch.tensor(1e-40).mul(1.0)) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def recovery(losses: Sequence[float], disturbance: Disturbance, steps: int) -> int | None:
    """Return how many steps after a disturbance the loss is back at what it was before it; None for never.

    What it was is the median of ten steps before; what it is, that of ten steps from a step on.

    Example:
        >>> spike = Disturbance(words="spike", steps=1, rate_factor=100.0)
        >>> recovery([2.0] * 11 + [9.0] * 3 + [1.0] * 26, spike, 40), recovery([2.0] * 11 + [9.0] * 29, spike, 40)
        (0, None)
    """
    if not disturbance.words:
        return None
    start = steps // 4
    before, after = losses[max(0, start - _WINDOW) : start], start + disturbance.steps
    for step in range(after, len(losses) - _WINDOW + 1):
        if statistics.median(losses[step : step + _WINDOW]) <= statistics.median(before):
            return step - after
    return None
