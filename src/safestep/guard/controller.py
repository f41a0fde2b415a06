"""The controller: asks radius and policy about one proposed step, has it rescaled, and makes its report."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from safestep._torch.warn_once import Once
from safestep.guard.rate_peaks import RatePeaks
from safestep.guard.wind_down import WindDown
from safestep.policy import Policy
from safestep.radius import Radius
from safestep.radius.across_ranks import measured
from safestep.radius.deferred import Decision
from safestep.radius.radius import State
from safestep.recording.forwards import Forwards
from safestep.recording.proposal import Proposal
from safestep.recording.step import Step
from safestep.records.reading import Reading, Status
from safestep.records.report import StepReport

Rates = tuple[float, ...]

_PARTS = (
    "a step of {count} micro-batches: r is measured on {kept} of them, spread evenly over the step, and may be larger "
    "on another. For all of them: attach(..., max_forwards={count}), which keeps their inputs until the step"
)
_OVER = (
    "step {step} comes after the end of the run that this guard was told: the target stays at {target:.3g}, that of "
    "the last step, or lower where learning rates come down. To train longer, go back to a checkpoint from before the "
    "decay and give a later end"
)
_EARLY = "shortened early: r was predicted, not measured (sync='never')"


class Controller:
    """A radius and a policy, and what they remember from step to step.

    Args:
        radius: how far a step may go.
        policy: what to do about it.
        say: warns, once about each thing.

    Attributes:
        radius_state: what the radius returned last; None before the first step.
        policy_state: likewise the policy.
        wind_down: the end of the run, once somebody has decided on it.
        peaks: of the learning rates, which the target follows down where the radius asks for that.
    """

    def __init__(self, radius: Radius, policy: Policy, say: Once) -> None:
        self.radius, self.policy = radius, policy
        self.radius_state: State = None
        self.policy_state: State = None
        self.wind_down: WindDown | None = None
        self.peaks = self._coming = RatePeaks()  # the latter with a step that may yet be undone
        self._say = say
        self._no_target: Exception | None = None  # what the policy raised instead of a target

    @property
    def follows(self) -> bool:
        """Whether the target goes down with the learning rates."""
        return self.radius.follow_schedule and self.policy.may_follow

    def propose(self, step: Step, forwards: Forwards, schedule: Mapping[str, float]) -> Proposal:
        """Ask the policy, once, what it aims at in this step; what it raises is kept until `decide`.

        Args:
            step: that was taken.
            forwards: that it was made from.
            schedule: the learning rates of the groups that took it, by name.
        """
        target, self._no_target, end, self._coming = math.nan, None, self.wind_down, self.peaks
        try:
            target = self.policy.target_at(step.index)
            target = target * end.factor(step.index) if end else target
            if self.policy.over(step.index) or (end and end.over(step.index)):
                self._say("over", _OVER.format(step=step.index, target=target))
            if self.follows:
                self._coming = self.peaks.after(schedule)
                target *= self._coming.factor(schedule)
        except Exception as error:
            self._no_target = error
        return Proposal(step, forwards, target, self.policy.always)

    def read_norms(self, proposal: Proposal) -> None:
        """Read from the device how long the step is, with whatever else the radius will need to know of it."""
        if self._no_target is None:
            with contextlib.suppress(Exception):  # measuring will meet it again
                self.radius.read_norms(proposal, self.radius_state)

    def decide(self, proposal: Proposal, lrs: Rates, *, scalable: bool, keep: bool) -> StepReport:
        """Measure a step, rescale it, and report.

        Args:
            proposal: the step, whose norms were read.
            lrs: the learning rates, for the report.
            scalable: whether the step may be scaled at all; an optimizer that searches its own step is only watched.
            keep: whether somebody will ask for ``p`` after the step was rescaled.

        Raises:
            Exception: what the radius or policy raises, unless the policy only watches. The step is then as proposed.
        """
        step, forwards = proposal.step, proposal.forwards
        if not math.isfinite(step.length) and (forwards.peers.alone or forwards.peers.lockstep):
            return self._refuse(step, nothing(step, "the step is not finite"), lrs, keep=keep)
        try:
            if self._no_target is not None:
                raise self._no_target
            reading, radius_state = measured(self.radius, proposal, self.radius_state)
            if not reading.finite:
                what = "r" if math.isfinite(step.length) else "the step"
                return self._refuse(step, replace(reading, message=f"{what} is not finite"), lrs, keep=keep)
            # A radius that asked no forward has not said how many were kept.
            if forwards.dropped and reading.message == forwards.kept_of_all:
                self._say("max_forwards", _PARTS.format(count=forwards.count, kept=len(forwards.kept)))
            would, policy_state = self._scale(reading, proposal)
            reading = replace(
                reading, message=reading.message or self.policy.says(reading.ratio, step.length, proposal.target)
            )
        except Exception as error:
            if self.policy.writes:
                raise
            return self.unmeasured(step, error, lrs)
        self.radius_state, self.policy_state, self.peaks = radius_state, policy_state, self._coming
        if not scalable:
            reading = replace(reading, message=reading.message or "LBFGS searches its own step: watched, not scaled")
            return report_of(step, reading, Status.WATCHED, 1.0, lrs, would, proposal.target)
        scale = would if self.policy.writes else 1.0
        _rescale(step, scale, keep=keep)
        return report_of(step, reading, self._status(reading, scale), scale, lrs, would, proposal.target)

    def _scale(self, reading: Reading, proposal: Proposal) -> tuple[float, State]:
        """Return the scale that the policy stands for, and its new state in plain numbers."""
        with torch.device("cpu"):  # these are numbers of the host, whatever the default device; some have no float64
            ratio, length = (torch.tensor(n, dtype=torch.float64) for n in (reading.ratio, proposal.step.length))
            scale, state = self.policy.scale(ratio, length, proposal.target, self.policy_state)
        return float(scale), state and {key: _number(value) for key, value in state.items()}

    def unmeasured(self, step: Step, error: Exception, lrs: Rates) -> StepReport:
        """Report a step that could not be measured and is left alone, and say so once."""
        self._say("unmeasured", f"step {step.index} could not be measured: {error or repr(error)}")
        reading = nothing(step, str(error) or repr(error))
        return StepReport.of(reading, Status.UNMEASURED, step.known_length, 1.0, 1.0, math.nan, lrs)

    def decide_on_device(self, proposal: Proposal) -> Decision | None:
        """Decide about a step without reading the device, if the radius and the policy can."""
        if self._no_target is not None or self.follows:  # a step that is undone does not count for the peaks
            return None
        try:
            prediction = self.radius.predict(proposal, self.radius_state)
            if prediction is None:
                return None
            scale, state = self.policy.scale(prediction.ratio, prediction.length, proposal.target, self.policy_state)
            if state is not None:  # it learns from measurements
                return None
            return Decision(torch.where(torch.isfinite(prediction.ratio), scale, 0.0), prediction, proposal.target)
        except Exception:  # measuring will meet it again, and knows what to do
            return None

    def resolve(self, step: Step, decision: Decision, numbers: list[float], lrs: Rates) -> StepReport:
        """Report a step that was decided on the device."""
        *read, would = numbers
        resolved, scale = decision.prediction.resolve(read), would if self.policy.writes else 1.0
        reading, length = resolved.reading, resolved.vitals.length
        if length == 0.0:  # nothing that the radius could learn from
            return still(step, decision.target, lrs)
        self.radius_state = resolved.state
        if not math.isfinite(length):
            status = Status.UNDONE if self.policy.writes else Status.NONFINITE
            reading = nothing(step, "the step is not finite")
        else:
            status = self._status(reading, scale)
            reading = replace(reading, message=_EARLY if scale < 1.0 else reading.message)
        return StepReport.of(reading, status, length, scale, would, decision.target, lrs)

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


def still(step: Step, target: float, lrs: Rates) -> StepReport:
    """Report a step that moved nothing."""
    reading = Reading(step.index, 0.0, "", message="nothing moved")
    return StepReport.of(reading, Status.STILL, 0.0, 1.0, 1.0, target, lrs)


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
