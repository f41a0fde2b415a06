"""Watch: measure and report, never touch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from safestep.policy.policy import Policy
from safestep.radius.radius import Radius, State
from safestep.records.reading import Status


@dataclass(frozen=True)
class Watch(Policy):
    """Leave every step alone, and report what another policy would have done.

    Equation:
        ``s = 1`` is applied; `scale` is that of the other policy.

    Attributes:
        policy: the policy whose scale is reported as ``would_scale``; None reports 1.

    Example:
        >>> from safestep.policy.cap import Cap
        >>> Watch(Cap(1.0)).scale(torch.tensor(4.0), torch.tensor(1.0), 1.0, None), Watch(Cap(1.0)).writes
        ((tensor(0.2500), None), False)

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

    @property
    def may_follow(self) -> bool:
        """Whether the watched policy may."""
        return self.policy.may_follow if self.policy else False

    def target_at(self, step: int) -> float:
        """Return the target of the watched policy; nan without one."""
        return self.policy.target_at(step) if self.policy else math.nan

    def over(self, step: int) -> bool:
        """Return what the watched policy says; False without one."""
        return self.policy.over(step) if self.policy else False

    def scale(self, ratio: Tensor, length: Tensor, target: float, state: State) -> tuple[Tensor, State]:
        """Return what the watched policy returns, and the state it would have reached; 1 without one."""
        return self.policy.scale(ratio, length, target, state) if self.policy else (torch.ones_like(ratio), state)
