"""What `Cap` and `Pin` share: a target, and a schedule that multiplies it from step to step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

from safestep.policy.policy import Policy
from safestep.schedules import Schedule

Target = float | Callable[[int], float]
"""The largest r a policy lets through: a positive number (inf allowed), or a function of the step, counted from 0."""

_A_TARGET = "a positive number (1 is the radius, inf never caps), or a function from the step to one"
_A_FACTOR = "a positive number, since a step of target 0 goes nowhere; DecayAtEnd stays above 0, Cosine with a floor"


@dataclass(frozen=True)
class Aimed(Policy):
    """A policy that aims at a target.

    Equation:
        ``target(t) schedule(t)`` in step t, counted from 0.

    Attributes:
        target: r, dimensionless; a number or a function of the step.
        schedule: a function from the step to a positive factor, such as ``DecayAtEnd(total=10_000)``; None for 1.
    """

    target: Target = 1.0
    schedule: Callable[[int], float] | None = None

    def __post_init__(self) -> None:
        """Check what is known before the first step."""
        if not callable(self.target):
            _positive(self.target, "target", _A_TARGET)
        if self.schedule is not None and not callable(self.schedule):
            raise ValueError(
                f"schedule = {self.schedule!r}: expected a function from the step to a factor, such as "
                "safestep.schedules.DecayAtEnd(total=10_000); a number belongs into the target"
            )

    @property
    def may_follow(self) -> bool:
        """Whether the target is a number, without a schedule of its own."""
        return not callable(self.target) and self.schedule is None

    def target_at(self, step: int) -> float:
        """Return the r that the policy aims at in this step.

        Raises:
            ValueError: if the target or the factor of this step is not a positive number.
        """
        target = self.target(step) if callable(self.target) else self.target
        factor = self.schedule(step) if self.schedule is not None else 1.0
        return _positive(target, f"target({step})", _A_TARGET) * _positive(factor, f"schedule({step})", _A_FACTOR)

    def over(self, step: int) -> bool:
        """Return whether target or schedule say that the run they were made for has ended."""
        parts: tuple[object, ...] = (self.target, self.schedule)
        return any(isinstance(part, Schedule) and part.over(step) for part in parts)


def _positive(value: object, name: str, expected: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) > 0:
        raise ValueError(f"{name} = {value!r}: expected {expected}")
    return float(value)
