"""What becomes of one step: read it, decide, write theta_0 + s p, report."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace

from safestep.deferred import Foresight
from safestep.forward import Seen
from safestep.once import Once
from safestep.policy import Policy
from safestep.radius import Radius
from safestep.radius.agreement import measured
from safestep.radius.base import State
from safestep.reading import Reading, Status
from safestep.record import StepReport
from safestep.step import Step

Rates = tuple[float, ...]

_PARTS = (
    "a step of {count} micro-batches: r is measured on {kept} of them, spread evenly over the step, and may be larger "
    "on another. For all of them: attach(..., max_forwards={count}), which keeps their inputs until the step"
)


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

    def aim(self, step: Step) -> None:
        """Tell a step what the policy aims at."""
        step.target, step.always = self.policy.target_at(step.index), getattr(self.policy, "always", True)

    def look(self, step: Step, seen: Seen) -> None:
        """Read what the step is; the radius knows what it will need."""
        look = getattr(self.radius, "look", None)
        if look is not None:
            with contextlib.suppress(Exception):  # a target that fails: measuring will meet it again
                self.aim(step)
                look(step, seen, self.radius_state)

    def judge(self, step: Step, seen: Seen, lrs: Rates, *, scalable: bool, keep: bool) -> StepReport:
        """Measure a step, rescale it, and report.

        Args:
            step: as proposed.
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
            self.aim(step)
            reading, radius_state = measured(self.radius, step, seen, self.radius_state)
            if not reading.finite:
                what = "r" if math.isfinite(step.length) else "the step"
                return self._refuse(step, replace(reading, message=f"{what} is not finite"), lrs, keep=keep)
            reading = replace(reading, length=step.length)
            if seen.dropped and reading.message == seen.parts:
                self._say("max_forwards", _PARTS.format(count=seen.count, kept=len(seen.forwards)))
            would = self.policy.would(reading, self.policy_state)
            scale, policy_state = self.policy.scale(reading, self.policy_state)
            reading = replace(reading, message=reading.message or self._says(reading))
        except Exception as error:
            if self.policy.writes:
                raise
            return self.unmeasured(step, error, lrs, step.length)
        self.radius_state, self.policy_state = radius_state, policy_state
        if not scalable:
            reading = replace(reading, message=reading.message or "LBFGS searches its own step: watched, not scaled")
            return report_of(step, reading, Status.WATCHED, 1.0, lrs, would, step.target)
        _rescale(step, scale, keep=keep)
        return report_of(step, reading, self._status(reading, scale), scale, lrs, would, step.target)

    def unmeasured(self, step: Step, error: Exception, lrs: Rates, length: float) -> StepReport:
        """Report a step that could not be measured and is left alone, and say so once."""
        self._say("unmeasured", f"step {step.index} could not be measured: {error}")
        return StepReport.of(nothing(step, str(error)), Status.UNMEASURED, length, 1.0, 1.0, math.nan, lrs)

    def foresee(self, step: Step, seen: Seen) -> Foresight | None:
        """Return what to do about a step without reading the device, if the radius can tell."""
        foresee = getattr(self.radius, "foresee", None)
        if foresee is None:
            return None
        try:
            self.aim(step)
            foresight: Foresight | None = foresee(step, seen, self.radius_state)
        except Exception:  # measuring will meet it again, and knows what to do
            return None
        return foresight

    def settle(self, step: Step, foresight: Foresight, numbers: list[float], lrs: Rates) -> StepReport | None:
        """Report a step that was decided on the device; None if nothing moved."""
        settled = foresight.settle(numbers)
        self.radius_state, length, scale = settled.state, settled.vitals.length, settled.scale
        if length == 0.0:
            return None
        applied = scale if self.policy.writes else 1.0
        if not math.isfinite(length):
            status = Status.UNDONE if self.policy.writes else Status.NONFINITE
            reading = nothing(step, "the step is not finite")
            return StepReport.of(reading, status, length, applied, scale, step.target, lrs)
        would = 1.0 if scale == 1.0 else self.policy.would(settled.reading, self.policy_state)
        status = self._status(settled.reading, applied)
        return StepReport.of(settled.reading, status, length, applied, would, step.target, lrs)

    def _says(self, reading: Reading) -> str:
        says: Callable[[Reading], str] = getattr(self.policy, "says", lambda _: "")
        return says(reading)

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


def _rescale(step: Step, scale: float, *, keep: bool) -> None:
    if keep and scale != 1.0:
        _ = step.displacement  # the parameters do not tell it once they are rescaled
    step.rescale(scale)
