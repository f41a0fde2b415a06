"""The judge: asks radius and policy about one step, has it rescaled, and makes its report."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace

import torch

from safestep._torch.warn_once import Once
from safestep.policy import Policy
from safestep.radius import Radius
from safestep.radius.across_ranks import measured
from safestep.radius.base import State
from safestep.radius.deferred import Decision
from safestep.recording.forward import Seen
from safestep.recording.step import Step
from safestep.records.reading import Reading, Status
from safestep.records.report import StepReport

Rates = tuple[float, ...]

_PARTS = (
    "a step of {count} micro-batches: r is measured on {kept} of them, spread evenly over the step, and may be larger "
    "on another. For all of them: attach(..., max_forwards={count}), which keeps their inputs until the step"
)
_EARLY = "shortened early: r was predicted, not measured (sync='never')"


class Judge:
    """A radius and a policy, and what they remember from step to step.

    Args:
        radius: how far a step may go.
        policy: what to do about it.
        say: warns, once about each thing.

    Attributes:
        radius_state: what the radius returned last; None before the first step.
        policy_state: likewise the policy.
    """

    def __init__(self, radius: Radius, policy: Policy, say: Once) -> None:
        self.radius, self.policy = radius, policy
        self.radius_state: State = None
        self.policy_state: State = None
        self._say = say
        self._aimless: Exception | None = None  # what the policy raised instead of a target

    def aim(self, step: Step) -> None:
        """Ask the policy, once, what it aims at in this step; what it raises is kept until the step is judged."""
        step.always, self._aimless = self.policy.always, None
        try:
            step.target = self.policy.target_at(step.index)
        except Exception as error:
            self._aimless = error

    def look(self, step: Step, seen: Seen) -> None:
        """Read what an aimed step is; the radius knows what it will need."""
        if self._aimless is None:
            with contextlib.suppress(Exception):  # measuring will meet it again
                self.radius.look(step, seen, self.radius_state)

    def judge(self, step: Step, seen: Seen, lrs: Rates, *, scalable: bool, keep: bool) -> StepReport:
        """Measure a step, rescale it, and report.

        Args:
            step: as proposed, aimed and looked at.
            seen: the forwards that count for it.
            lrs: the learning rates, for the report.
            scalable: whether the step may be scaled at all; an optimizer that searches its own step is only watched.
            keep: whether somebody will ask for ``p`` after the step was rescaled.

        Raises:
            Exception: what the radius or policy raises, unless the policy only watches. The step is then as proposed.
        """
        if not math.isfinite(step.length) and (seen.peers.alone or seen.peers.lockstep):
            return self._refuse(step, nothing(step, "the step is not finite"), lrs, keep=keep)
        try:
            if self._aimless is not None:
                raise self._aimless
            reading, radius_state = measured(self.radius, step, seen, self.radius_state)
            if not reading.finite:
                what = "r" if math.isfinite(step.length) else "the step"
                return self._refuse(step, replace(reading, message=f"{what} is not finite"), lrs, keep=keep)
            if seen.dropped and reading.message == seen.parts:
                self._say("max_forwards", _PARTS.format(count=seen.count, kept=len(seen.forwards)))
            would, policy_state = self._scale(reading, step)
            message = reading.message or self.policy.says(reading.ratio, step.length)
            reading = replace(reading, message=message)
        except Exception as error:
            if self.policy.writes:
                raise
            return self.unmeasured(step, error, lrs)
        self.radius_state, self.policy_state = radius_state, policy_state
        if not scalable:
            reading = replace(reading, message=reading.message or "LBFGS searches its own step: watched, not scaled")
            return report_of(step, reading, Status.WATCHED, 1.0, lrs, would, step.target)
        scale = would if self.policy.writes else 1.0
        _rescale(step, scale, keep=keep)
        return report_of(step, reading, self._status(reading, scale), scale, lrs, would, step.target)

    def _scale(self, reading: Reading, step: Step) -> tuple[float, State]:
        """Return the scale that the policy stands for, and its new state in plain numbers."""
        ratio, length = torch.tensor([reading.ratio, step.length], dtype=torch.float64)
        scale, state = self.policy.scale(ratio, length, step.target, self.policy_state)
        return float(scale), state and {key: _number(value) for key, value in state.items()}

    def unmeasured(self, step: Step, error: Exception, lrs: Rates) -> StepReport:
        """Report a step that could not be measured and is left alone, and say so once."""
        self._say("unmeasured", f"step {step.index} could not be measured: {error or repr(error)}")
        known = nothing(step, str(error) or repr(error))
        return StepReport.of(known, Status.UNMEASURED, step.known_length, 1.0, 1.0, math.nan, lrs)

    def foresee(self, step: Step, seen: Seen) -> Decision | None:
        """Decide about an aimed step without reading the device, if the radius and the policy can."""
        if self._aimless is not None:
            return None
        try:
            foresight = self.radius.foresee(step, seen, self.radius_state)
            if foresight is None:
                return None
            scale, state = self.policy.scale(foresight.ratio, foresight.length, step.target, self.policy_state)
            if state is not None:  # it learns from measurements
                return None
            return Decision(torch.where(torch.isfinite(foresight.ratio), scale, 0.0), foresight)
        except Exception:  # measuring will meet it again, and knows what to do
            return None

    def settle(self, step: Step, decision: Decision, numbers: list[float], lrs: Rates) -> StepReport:
        """Report a step that was decided on the device."""
        *known, would = numbers
        settled, scale = decision.foresight.settle(known), would if self.policy.writes else 1.0
        reading, length = settled.reading, settled.vitals.length
        if length == 0.0:  # nothing that the radius could learn from
            return still(step, lrs)
        self.radius_state = settled.state
        if not math.isfinite(length):
            status = Status.UNDONE if self.policy.writes else Status.NONFINITE
            reading = nothing(step, "the step is not finite")
        else:
            status = self._status(reading, scale)
            reading = replace(reading, message=_EARLY if scale < 1.0 else reading.message)
        return StepReport.of(reading, status, length, scale, would, step.target, lrs)

    def _status(self, reading: Reading, scale: float) -> Status:
        if not self.policy.writes:
            return Status.WATCHED
        if reading.uphill and scale == 0.0:
            return Status.HELD
        if scale != 1.0:
            return self.policy.scaled
        return Status.UNBOUNDED if reading.unbounded else Status.INSIDE

    def _refuse(self, step: Step, reading: Reading, lrs: Rates, *, keep: bool) -> StepReport:
        if not self.policy.writes:
            return report_of(step, reading, Status.NONFINITE, 1.0, lrs, 0.0)
        _rescale(step, 0.0, keep=keep)
        return report_of(step, reading, Status.UNDONE, 0.0, lrs)


def nothing(step: Step, message: str) -> Reading:
    """Return the reading of a step whose r is not known."""
    return Reading(step.index, math.nan, "", exact=False, message=message)


def still(step: Step, lrs: Rates) -> StepReport:
    """Report a step that moved nothing."""
    reading = Reading(step.index, 0.0, "", message="nothing moved")
    return StepReport.of(reading, Status.STILL, 0.0, 1.0, 1.0, step.target, lrs)


def report_of(
    step: Step,
    reading: Reading,
    status: Status,
    scale: float,
    lrs: Rates,
    would: float | None = None,
    target: float = math.nan,
) -> StepReport:
    """Return the report of a step."""
    return StepReport.of(reading, status, step.length, scale, scale if would is None else would, target, lrs)


def _number(value: object) -> object:
    return value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value


def _rescale(step: Step, scale: float, *, keep: bool) -> None:
    if keep and scale != 1.0:
        _ = step.displacement  # the parameters do not tell it once they are rescaled
    step.rescale(scale)
