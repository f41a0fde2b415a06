"""Cap: shorten a step that goes too far, leave every other one alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from safestep.policy.aimed import Aimed
from safestep.radius.radius import State
from safestep.records.reading import Status


@dataclass(frozen=True)
class Cap(Aimed):
    r"""Keep the ratio of every step at or below a target.

    Equation:
        ``s = min(1, target / r)``. A step with ``r <= target`` is not touched: bit for bit the plain optimizer.

    Attributes:
        target: the largest r, dimensionless: 0.5 careful, 1 the radius, 2 mostly works; inf never caps. A function
            of the step (from 0) follows a schedule.
        schedule: a function from the step to a positive factor on the target, such as ``DecayAtEnd(total=10_000)``.

    Raises:
        ValueError: at construction, for a target that is not positive, or a schedule that is no function.

    Example:
        >>> Cap(1.0).scale(torch.tensor([0.5, 4.0]), torch.ones(2), 1.0, None)
        (tensor([1.0000, 0.2500]), None)
        >>> from safestep.schedules import DecayAtEnd
        >>> [Cap(2.0, schedule=DecayAtEnd(total=8, share=0.5)).target_at(step) for step in range(8)]
        [2.0, 2.0, 2.0, 2.0, 2.0, 1.5, 1.0, 0.5]

    Reference:
        P. Sao, arXiv 2603.13552 (2026), the capped controller.
    """

    scaled: ClassVar[Status] = Status.CAPPED

    @property
    def always(self) -> bool:
        """Never: a step inside is left alone."""
        return False

    def scale(self, ratio: Tensor, length: Tensor, target: float, state: State) -> tuple[Tensor, State]:
        """Return ``min(1, target / r)``; 1 where r = 0."""
        return torch.where(ratio <= target, 1.0, torch.full_like(ratio, target) / ratio), state
