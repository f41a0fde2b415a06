"""Steps on trial: what r would be if the optimizers stepped now at other learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import nn
from torch.optim import Optimizer

from safestep.distributed.consensus import ALONE
from safestep.distributed.ranks import Ranks
from safestep.errors import MeasurementError
from safestep.jvp.restore import untouched
from safestep.radius import Radius
from safestep.radius.across_ranks import measured
from safestep.recording.forward_hooks import ForwardRecorder
from safestep.recording.forwards import Forwards
from safestep.recording.logits import LogitsFinder
from safestep.recording.mute import heard_only_by
from safestep.recording.nonfinite import parameters_of
from safestep.recording.proposal import Proposal
from safestep.recording.step import Parameters, Step
from safestep.recording.trained import Trained
from safestep.records.reading import Reading
from safestep.tools.twin import twin_of


@dataclass(frozen=True, slots=True)
class Trial:
    """What a step on trial told.

    Attributes:
        reading: r of the step, with how it was measured; nan for a step that is not finite.
        moved: whether the step moved a parameter at all: not at a rate of 0, nor where rounding swallows it.
    """

    reading: Reading
    moved: bool = True


@dataclass(frozen=True, slots=True)
class OnTrial:
    """A batch whose forward and backward have run on trial: what they left, and the steps from there."""

    model: nn.Module
    optimizers: Sequence[Optimizer]
    forwards: Forwards
    start: Parameters
    gradients: Parameters

    @contextmanager
    def stepped(self, rates: Sequence[float] | None = None) -> Iterator[tuple[Step, list[Optimizer]]]:
        """Take a step by twins of the optimizers, at their own rates or others; yield both, and undo it afterwards."""
        for parameter, gradient in self.gradients.items():
            parameter.grad = gradient.clone()  # an optimizer or a hook of it (a clipping) may write to it
        step = Step(0, peers=self.forwards.peers)
        step.start |= self.start
        twins = []
        try:
            remaining = iter(rates or ())
            for optimizer in self.optimizers:
                own = [next(remaining) for _ in optimizer.param_groups] if rates else None
                twins.append(twin_of(optimizer, self.model, own))
                twins[-1].step()
            yield step, twins
        finally:
            step.undo()


@contextmanager
def on_trial(
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    closure: Callable[[], object],
    logits: LogitsFinder | None,
    ranks: Ranks | None,
    *,
    hold: bool,
) -> Iterator[OnTrial]:
    """Run the closure, once, and yield what it left; everything is untouched afterwards, and no guard hears of it.

    With ``hold`` dL/dz is kept; ``ranks`` take the step together.

    Raises:
        MeasurementError: if the closure leaves no gradient, or steps an optimizer; if the model holds an average.
    """
    if any(group.get("averaged_shown") for optimizer in optimizers for group in optimizer.param_groups):
        raise MeasurementError(
            "the model holds the averaged weights, from which no step is taken: call train() of the Averaged optimizer"
        )
    parameters = [parameter for optimizer in optimizers for parameter in parameters_of(optimizer)]
    with untouched(model, parameters) as start:
        recorder = ForwardRecorder(Trained(model, optimizers), logits, hold=hold)
        try:
            with heard_only_by(recorder):
                with _no_steps(optimizers), torch.enable_grad():
                    closure()
                gradients = {parameter: parameter.grad for parameter in parameters if parameter.grad is not None}
                if not gradients:
                    raise MeasurementError(
                        "the closure left no gradient on any parameter of the optimizer: it must run backward on the "
                        "batch, such as lambda: loss_fn(model(x), y).backward()"
                    )
                forwards = recorder.take(recorder.count)
                forwards.peers = ranks.peers(model, parameters) if ranks else ALONE
                yield OnTrial(model, optimizers, forwards, start, gradients)
        finally:
            recorder.close()


@contextmanager
def trial_steps(
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    closure: Callable[[], object],
    radius: Radius,
    logits: LogitsFinder | None,
    ranks: Ranks | None,
) -> Iterator[Callable[[Sequence[float]], Trial]]:
    """Run the closure, once, and yield a function from the rates of all groups to the trial step there.

    See `on_trial`, also for what it raises.
    """
    with on_trial(model, optimizers, closure, logits, ranks, hold=radius.needs.gradient) as batch:

        def trial(rates: Sequence[float]) -> Trial:
            """Take a step at these rates, measure it, and undo it."""
            with batch.stepped(rates) as (step, _):
                if step.length == 0.0 or not math.isfinite(step.length):
                    return Trial(Reading(0, 0.0 * step.length, "", exact=False), moved=step.length != 0.0)
                reading, _ = measured(radius, Proposal(step, batch.forwards), None)  # each is a first measurement
                return Trial(reading)

        yield trial


@contextmanager
def _no_steps(optimizers: Sequence[Optimizer]) -> Iterator[None]:
    """Refuse ``step()``, before any hook of it runs."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise MeasurementError(
            "the closure called optimizer.step(): leave it out, the step is taken on a copy of the optimizer"
        )

    own = [{name: value for name, value in vars(optimizer).items() if name == "step"} for optimizer in optimizers]
    for optimizer in optimizers:
        vars(optimizer)["step"] = refuse
    try:
        yield
    finally:
        for optimizer, step in zip(optimizers, own, strict=True):
            del vars(optimizer)["step"]
            vars(optimizer).update(step)  # a scheduler's, that counts
