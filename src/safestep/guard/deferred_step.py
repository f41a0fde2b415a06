"""A step that was decided on the device and is recorded once somebody wants to know what became of it."""

from __future__ import annotations

from dataclasses import dataclass

from safestep.guard.controller import Controller
from safestep.guard.round import Taken
from safestep.radius.deferred import Decision, Later
from safestep.records.report import StepReport


@dataclass(frozen=True, slots=True)
class DeferredStep:
    """A step whose report waits.

    Attributes:
        taken: the step, and who took it.
        decision: what the policy made of it.
        numbers: what the report needs, on their way to the host.
    """

    taken: Taken
    decision: Decision
    numbers: Later

    def report(self, controller: Controller) -> StepReport:
        """Return the report, after waiting for numbers that have not arrived yet.

        Raises:
            Exception: what the radius raises, unless the policy only watches.
        """
        step, rates = self.taken.step, self.taken.rates
        try:
            return controller.resolve(step, self.decision, self.numbers.tolist(), rates)
        except Exception as error:
            if controller.policy.writes:
                raise
            return controller.unmeasured(step, error, rates)
