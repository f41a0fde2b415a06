"""Cap: shorten a step that goes too far, leave every other one alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from safestep.policy.base import Policy, Target, check_target, evaluate_target, target_of
from safestep.radius.base import State
from safestep.records.reading import Reading, Status


@dataclass(frozen=True)
class Cap(Policy):
    r"""Keep the ratio of every step at or below a target.

    Equation:
        ``s = min(1, target / r)``. A step with ``r <= target`` is not touched: bit for bit the plain optimizer.

    Attributes:
        target: the largest r, dimensionless: 0.5 careful, 1 the radius, 2 mostly works; inf never caps. A function
            of the step (from 0) follows a schedule.

    Raises:
        ValueError: at construction, for a target that is not positive.

    Example:
        >>> Cap(1.0).scale(Reading(step=0, ratio=4.0, method=""), None)
        (0.25, None)

    Reference:
        P. Sao, arXiv 2603.13552 (2026), the capped controller.
    """

    target: Target = 1.0

    scaled: ClassVar[Status] = Status.CAPPED

    def __post_init__(self) -> None:
        """Check the target."""
        check_target(self.target)

    @property
    def always(self) -> bool:
        """Never: a step inside is left alone."""
        return False

    def target_at(self, step: int) -> float:
        """Return the largest r allowed in this step."""
        return evaluate_target(self.target, step)

    def scale(self, reading: Reading, state: State) -> tuple[float, State]:
        """Return ``min(1, target / r)``; 1 where r = 0."""
        target = target_of(reading, self.target_at)
        return (1.0 if reading.ratio <= target else target / reading.ratio), state

    def would_unread(self, ratio: Tensor, target: float) -> Tensor:
        """Return the same for a tensor of ratios."""
        return torch.where(ratio <= target, 1.0, target / ratio)
