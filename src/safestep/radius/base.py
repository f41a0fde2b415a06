"""The protocol of a radius."""

from __future__ import annotations

from typing import Any, Protocol

from safestep.forward import Seen
from safestep.reading import Reading
from safestep.step import Step

State = dict[str, Any] | None
"""What a radius or policy remembers from step to step: plain data, kept by the guard; None at the first step."""


class Radius(Protocol):
    """Says how far a step goes, as the ratio r of its length to the longest length this radius allows.

    A radius is a frozen dataclass without state: one instance may serve many guards.
    """

    def measure(self, step: Step, seen: Seen, state: State) -> tuple[Reading, State]:
        """Return the reading of a proposed step, and what to pass in at the next one.

        Args:
            step: where the step started and its displacement ``p``. The parameters of the model hold ``theta + p``.
            seen: the forwards whose logits backward reached since the last step.
            state: what the previous call returned; None at first.

        Returns:
            The reading and the new state, plain data that ``torch.load(weights_only=True)`` accepts.

        Raises:
            MeasurementError: if the step cannot be measured; the guard then undoes it, or, under a policy that only
                watches, reports it as unmeasured.
        """
        ...
