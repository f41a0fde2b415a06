"""Pin: set the length of every step from its radius, with no learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from safestep.policy.aimed import Aimed
from safestep.radius.radius import State
from safestep.records.reading import Status

_MUCH = 1e6
"""Float32 weights of size 0.1 change by 6e-9 at least: far above a proposal that has to be lengthened by more."""


@dataclass(frozen=True)
class Pin(Aimed):
    r"""Make the ratio of every step equal to a target, whatever the learning rate proposes.

    Equation:
        ``s = target / r``, so that the effective learning rate is ``target * rho / ||u||`` for the proposal ``u`` of
        the optimizer at rate 1. Where ``r = 0`` (or so small that the quotient overflows) nothing limits the step
        and ``s = 1``.

    Attributes:
        target: r of every step, dimensionless and finite: 0.5 careful, 1 the radius. A function of the step (from 0)
            follows a schedule.
        schedule: a function from the step to a positive factor on the target, such as ``DecayAtEnd(total=10_000)``.

    Raises:
        ValueError: at construction, for a target that is not positive or not finite, or a schedule that is no function.

    Example:
        >>> Pin(1.0).scale(torch.tensor([0.01, 4.0]), torch.ones(2), 1.0, None)
        (tensor([100.0000,   0.2500]), None)

    Note:
        The level of the learning rate drops out, but not from the rounding: the proposal is read off the parameters, so
        give it a rate near 1 rather than 1e-8. Its schedule does not, where the radius follows one: see
        ``follow_schedule`` of `default_limit`. For optimizers whose step is not proportional to their rate (Rprop,
        Adafactor) the state still sees the rate.

    Reference:
        The tutorials of piyush314/ghosts-of-softmax, where this controller is called rho-set.
    """

    scaled: ClassVar[Status] = Status.PINNED

    def __post_init__(self) -> None:
        """Check the target, which has to be finite, too."""
        super().__post_init__()
        if not callable(self.target):
            _finite(self.target)

    def target_at(self, step: int) -> float:
        """Return the r that this step is set to."""
        return _finite(super().target_at(step))

    def scale(self, ratio: Tensor, length: Tensor, target: float, state: State) -> tuple[Tensor, State]:
        """Return ``target / r``; 1 where r = 0, or so small that the quotient overflows."""
        scale = torch.full_like(ratio, target) / ratio
        return torch.where(torch.isfinite(scale), scale, 1.0), state

    def says(self, ratio: float, length: float, target: float) -> str:
        """Return that a step was lengthened so much that it may be rounding, or an empty text."""
        if not 0.0 < ratio * _MUCH < target:
            return ""
        return (
            f"lengthened {target / ratio:.0e} times: such a proposal may be rounding, give the optimizer a rate near 1"
        )


def _finite(target: float) -> float:
    if math.isinf(target):
        raise ValueError("Pin needs a finite target: every step is set to it. To leave steps alone use Watch()")
    return target
