"""What every policy is: the abstract class, and targets that may follow a schedule."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Real
from typing import ClassVar

from torch import Tensor

from safestep.radius.base import Radius, State
from safestep.records.reading import Reading, Status

Target = float | Callable[[int], float]
"""The largest r a policy lets through: a positive number (inf allowed), or a function of the step, counted from 0."""


class Policy(ABC):
    """Says by which factor to scale a step, given how far it goes.

    A policy is a frozen dataclass without state: one instance may serve many guards. The ratio of a step that goes
    uphill is inf.

    Attributes:
        writes: whether the guard may change parameters on the policy's behalf. A policy that only watches never
            causes a write and never an error.
        scaled: the status of a step whose scale is not 1.

    Example:
        >>> class Half(Policy):
        ...     def scale(self, reading, state):
        ...         return 0.5, state
        >>> Half().would(Reading(step=0, ratio=4.0, method=""), None)
        0.5
    """

    writes: ClassVar[bool] = True
    scaled: ClassVar[Status] = Status.CAPPED

    @property
    def always(self) -> bool:
        """Whether steps inside the target are scaled too, so that r has to be known however small it is."""
        return True

    @property
    def default_radius(self) -> Radius | None:
        """The radius that the policy is made for; None for the softmax radius."""
        return None

    @abstractmethod
    def scale(self, reading: Reading, state: State) -> tuple[float, State]:
        """Return the scale ``s`` of the step (finite, at least 0), and what to pass in at the next step."""

    def would(self, reading: Reading, state: State) -> float:
        """Return the scale this policy stands for, whether or not the guard may apply it."""
        return self.scale(reading, state)[0]

    def would_unread(self, ratio: Tensor, target: float) -> Tensor | None:
        """Return what `would` returns, elementwise, for ratios of steps that do not go uphill; None if it cannot tell.

        With it the guard decides without waiting for the device where ``SoftmaxRadius(sync="never")`` predicts r;
        otherwise the policy is asked the usual way, of a measured r.
        """
        return None

    def target_at(self, step: int) -> float:
        """Return the r that the policy aims at in this step; nan for a policy that aims at none."""
        return math.nan

    def says(self, reading: Reading) -> str:
        """Return what the user should know of what it did, for the record; an empty text for nothing."""
        return ""


def check_target(target: Target) -> None:
    """Raise ValueError unless the target is a function or a positive number."""
    if not callable(target):
        _positive(target, "target")


def evaluate_target(target: Target, step: int) -> float:
    """Return the target at a step, counted from 0.

    Raises:
        ValueError: if it is not a positive number.
    """
    return _positive(target(step), f"target({step})") if callable(target) else float(target)


def target_of(reading: Reading, target_at: Callable[[int], float]) -> float:
    """Return the target of a step: the one its reading carries, else what the policy says."""
    return target_at(reading.step) if math.isnan(reading.target) else reading.target


def _positive(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) > 0:
        raise ValueError(
            f"{name} = {value!r}: expected a positive number (1 is the radius, inf never caps), "
            "or a function from the step to one"
        )
    return float(value)
