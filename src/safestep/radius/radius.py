"""What every radius is: the abstract class, and what it needs to know of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any, ClassVar

from safestep.radius.deferred import Prediction
from safestep.recording.proposal import Proposal
from safestep.records.reading import Reading

State = dict[str, Any] | None
"""What a radius or policy remembers from step to step: plain data, kept by the guard; None at the first step."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a radius needs to know beyond the step and the forwards; whatever is not needed costs nothing.

    Attributes:
        logits: the logits of the training forward, by reference, where they are no larger than the parameters.
        tape: what is needed to differentiate the training forward along the step without running it again.
        gradient: the gradient at the logits, by reference.
        factor: by what the gradients of the parameters are multiplied between backward and the step (clipping).
        last: how the loss slopes now along the last step as it was applied.
    """

    logits: bool = False
    tape: bool = False
    gradient: bool = False
    factor: bool = False
    last: bool = False

    def __or__(self, other: Needs) -> Needs:
        """Return what either needs."""
        return Needs(
            logits=self.logits or other.logits,
            tape=self.tape or other.tape,
            gradient=self.gradient or other.gradient,
            factor=self.factor or other.factor,
            last=self.last or other.last,
        )


class Radius(ABC):
    """Says how far a step goes, as the ratio r of its length to the longest length this radius allows.

    A radius is a frozen dataclass without state: one instance may serve many guards.

    Attributes:
        agrees_across_ranks: whether on several ranks it agrees with the others by itself (by
            ``proposal.forwards.peers``). If not, the largest r of any rank is everybody's.
        follow_schedule: whether a guard lowers the target as the learning rates come down from their peaks.

    Example:
        >>> class Length(Radius):
        ...     def measure(self, proposal, state):
        ...         return Reading(proposal.step.index, proposal.step.length, "length"), state
        >>> Length().needs
        Needs(logits=False, tape=False, gradient=False, factor=False, last=False)
    """

    agrees_across_ranks: ClassVar[bool] = False
    follow_schedule: bool = False

    def __str__(self) -> str:
        """Return it as one writes it: without what is as by default."""
        kind: Any = type(self)
        own = [(option, getattr(self, option.name)) for option in (fields(kind) if is_dataclass(kind) else ())]
        told = [f"{option.name}={value!r}" for option, value in own if value != _default(option)]
        return f"{type(self).__name__}({', '.join(told)})"

    @property
    def needs(self) -> Needs:
        """What it needs to know beyond the step and the forwards."""
        return Needs()

    @property
    def parts(self) -> tuple[Radius, ...]:
        """The radii that it is made of."""
        return ()

    def exact(self) -> Radius:
        """Return the same radius by its exact method, for an audit."""
        return self

    def read_norms(self, proposal: Proposal, state: State) -> None:  # noqa: B027  # most need nothing
        """Call ``proposal.step.read`` with what `measure` will ask, so that the device is read once."""

    def found(self, state: State) -> str:
        """Return in words what it has found out by itself; an empty text for nothing."""
        found = [part.found(known) for part, known in zip(self.parts, (state or {}).get("parts", ()), strict=False)]
        return "; ".join(filter(None, found))

    def predict(self, proposal: Proposal, state: State) -> Prediction | None:
        """Return what is known of r without reading the device; None if it has to be measured."""
        return None

    @abstractmethod
    def measure(self, proposal: Proposal, state: State) -> tuple[Reading, State]:
        """Return the reading of a proposed step, and what to pass in at the next one.

        Args:
            proposal: the step and the forwards it was made from. The parameters of the model hold ``theta + p``.
            state: what the previous call returned; None at first.

        Returns:
            The reading and the new state, plain data that ``torch.load(weights_only=True)`` accepts.

        Raises:
            MeasurementError: if the step cannot be measured; the guard then undoes it, or, under a policy that only
                watches, reports it as unmeasured.
        """


def _default(option: Field[Any]) -> object:
    return option.default if option.default_factory is MISSING else option.default_factory()
