"""Watch: measure and report, never touch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from safestep.policy.base import Policy
from safestep.radius.base import Radius, State
from safestep.records.reading import Reading, Status


@dataclass(frozen=True)
class Watch(Policy):
    """Leave every step alone, and report what another policy would have done.

    Equation:
        ``s = 1``.

    Attributes:
        policy: the policy whose scale is reported as ``would_scale``; None reports 1.

    Example:
        >>> from safestep.policy.cap import Cap
        >>> reading = Reading(step=0, ratio=4.0, method="")
        >>> Watch(Cap(1.0)).scale(reading, None), Watch(Cap(1.0)).would(reading, None)
        ((1.0, None), 0.25)

    Note:
        A guard that watches never writes to a parameter and never raises: a step that cannot be measured is reported
        as such. Training is bit for bit what it is without the guard.
    """

    policy: Policy | None = None

    writes: ClassVar[bool] = False
    scaled: ClassVar[Status] = Status.WATCHED

    def __post_init__(self) -> None:
        """Refuse anything that is not a policy."""
        if self.policy is not None and not isinstance(self.policy, Policy):
            raise ValueError(f"Watch({self.policy!r}): expected a policy such as Cap(1.0), or nothing")

    @property
    def always(self) -> bool:
        """Whether the watched policy scales steps inside its target; False without one."""
        return self.policy.always if self.policy else False

    @property
    def default_radius(self) -> Radius | None:
        """The radius that the watched policy is made for; None where it has none of its own."""
        return self.policy.default_radius if self.policy else None

    def target_at(self, step: int) -> float:
        """Return the target of the watched policy; nan without one."""
        return self.policy.target_at(step) if self.policy else math.nan

    def scale(self, reading: Reading, state: State) -> tuple[float, State]:
        """Return 1, and the state the watched policy would have reached."""
        return 1.0, self.policy.scale(reading, state)[1] if self.policy else state

    def would_unread(self, ratio: Tensor, target: float) -> Tensor | None:
        """Return the scales of the watched policy for a tensor of ratios; None if it cannot tell, 1 without one."""
        if self.policy is None:
            return torch.ones_like(ratio)
        return self.policy.would_unread(ratio, target)

    def would(self, reading: Reading, state: State) -> float:
        """Return the scale of the watched policy; 1 without one."""
        return self.policy.would(reading, state) if self.policy else 1.0
