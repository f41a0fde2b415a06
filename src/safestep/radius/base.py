"""The protocol of a radius."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from safestep.recording.forward import Seen
from safestep.recording.step import Step
from safestep.records.reading import Reading

State = dict[str, Any] | None
"""What a radius or policy remembers from step to step: plain data, kept by the guard; None at the first step."""


@dataclass(frozen=True, kw_only=True)
class Wants:
    """What a radius needs to know beyond the step and the forwards; whatever is not wanted costs nothing.

    Attributes:
        logits: the logits of the training forward, by reference, where they are no larger than the parameters.
        tape: what is needed to differentiate the training forward along the step without running it again.
        gradient: the gradient at the logits, by reference.
    """

    logits: bool = False
    tape: bool = False
    gradient: bool = False

    def __or__(self, other: Wants) -> Wants:
        """Return what either wants."""
        return Wants(
            logits=self.logits or other.logits,
            tape=self.tape or other.tape,
            gradient=self.gradient or other.gradient,
        )


class Radius(Protocol):
    """Says how far a step goes, as the ratio r of its length to the longest length this radius allows.

    A radius is a frozen dataclass without state: one instance may serve many guards. It may have an attribute
    ``wants``, a `Wants`, a method ``look(step, seen, state)`` that calls ``step.look`` with what it needs, and a flag
    ``joint``: that on several ranks it agrees with the others by itself (``seen.peers``). Without it the largest r of
    any rank is everybody's.
    """

    def measure(self, step: Step, seen: Seen, state: State) -> tuple[Reading, State]:
        """Return the reading of a proposed step, and what to pass in at the next one.

        Args:
            step: where the step started, its displacement ``p``, and the target of the policy. The parameters of the
                model hold ``theta + p``.
            seen: the forwards whose logits backward reached since the last step.
            state: what the previous call returned; None at first.

        Returns:
            The reading and the new state, plain data that ``torch.load(weights_only=True)`` accepts.

        Raises:
            MeasurementError: if the step cannot be measured; the guard then undoes it, or, under a policy that only
                watches, reports it as unmeasured.
        """
        ...
