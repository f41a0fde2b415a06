"""What every policy is: the abstract class."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from safestep.radius.radius import Radius, State
from safestep.records.reading import Status


class Policy(ABC):
    """Says by which factor to scale a step, given how far it goes: elementwise, for one step or for thousands.

    A policy is a frozen dataclass without state: one instance may serve many guards. The guard asks it of one step,
    `safestep.descent` of every run of an ensemble, and ``SoftmaxRadius(sync="never")`` without reading the device.

    Attributes:
        writes: whether the guard may change parameters on the policy's behalf. A policy that only watches never
            causes a write and never an error.
        scaled: the status of a step whose scale is not 1.

    Example:
        >>> import torch
        >>> class Half(Policy):
        ...     def scale(self, ratio, length, target, state):
        ...         return torch.full_like(ratio, 0.5), state
        >>> Half().scale(torch.tensor([4.0, 0.1]), torch.ones(2), 1.0, None)
        (tensor([0.5000, 0.5000]), None)
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

    @property
    def may_follow(self) -> bool:
        """Whether a guard may lower the target as the learning rates come down, see `safestep.default_limit`."""
        return False

    @abstractmethod
    def scale(self, ratio: Tensor, length: Tensor, target: float, state: State) -> tuple[Tensor, State]:
        """Return the scale ``s`` that the policy stands for, and what to pass in at the next step.

        Args:
            ratio: r of the proposed step, of any shape, in float64; inf for a step that goes uphill.
            length: ``||p||_2`` of the proposal, in units of the parameters, of the same shape.
            target: what `target_at` said of this step.
            state: what the previous call returned, None at first; a guard hands single numbers back as floats.

        Returns:
            ``s`` of the same shape, finite and at least 0; and the new state, None if there is nothing to remember.
        """

    def target_at(self, step: int) -> float:
        """Return the r that the policy aims at in this step; nan for a policy that aims at none."""
        return math.nan

    def over(self, step: int) -> bool:
        """Return whether a step comes after the end that the policy was told of the run: a guard warns, once."""
        return False

    def says(self, ratio: float, length: float, target: float) -> str:
        """Return what the user should know of what it did to one step, for its record; an empty text for nothing."""
        return ""
