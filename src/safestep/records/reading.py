"""What a radius says of a step (`Reading`) and what became of the step (`Status`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """What a guard did with a step, and why."""

    INSIDE = "inside"
    """The step was inside and stands as the optimizer made it (s = 1)."""
    CAPPED = "capped"
    """The step was too long and was shortened to the target."""
    PINNED = "pinned"
    """The step was set to the target, whatever its length was."""
    THROTTLED = "throttled"
    """The step was scaled by the alpha of a throttle."""
    HELD = "held"
    """The step goes uphill on its own batch: the parameters stay, the optimizer's state has moved on (s = 0)."""
    WATCHED = "watched"
    """The step was measured and left alone."""
    UNBOUNDED = "unbounded"
    """The step moves no logit against another: r = 0, the radius is infinite, and the step stands (s = 1)."""
    UNMEASURED = "unmeasured"
    """The step could not be measured and, under a policy that only watches, was left alone. r is nan."""
    NONFINITE = "nonfinite"
    """The step, or its r, is not finite and, under a policy that only watches, was left alone."""
    UNDONE = "undone"
    """The step, or its r, was not finite: the parameters are back where they were."""
    SKIPPED = "skipped"
    """The gradients were not finite and the optimizer was kept from stepping (``on_nonfinite="skip"``)."""
    STILL = "still"
    """The optimizer was called and moved nothing (a rate of 0, a scaler's skip): r = 0 and no direction."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a proposed step goes, in units of its radius.

    Attributes:
        step: index of the step, counted by the guard from 0.
        ratio: r of the proposal, dimensionless and at least 0; 1 is the boundary; nan or inf where it could not be
            evaluated in floating point.
        method: how it was measured, for the record.
        exact: whether ``ratio`` is what its definition says, and not an estimate, a quantile or a reduced-precision
            value.
        message: what the user should know of this reading, or an empty text.
        age: steps since r was last measured; 0 if it was measured at this one, else ``ratio`` is a prediction.
        uphill: whether the loss rises along the step from its start, so that no length is short enough: ``ratio`` is
            then inf.
        standard_error: of ``ratio``, where it was estimated from a part of the rows; 0 where nothing was left to
            chance, nan where that is not known.
        kl: the predicted mean KL divergence between the predictions before and after the step,
            ``mean Var_softmax(z)(J p) / 2``, in nats; nan where the radius does not tell it.
        fresh_share: how much of the slope ``g.p`` a fresh batch is expected to find, in [0.2, 1]; nan where the radius
            does not ask.
    """

    step: int
    ratio: float
    method: str
    exact: bool = True
    message: str = ""
    age: int = 0
    uphill: bool = False
    standard_error: float = math.nan
    kl: float = math.nan
    fresh_share: float = math.nan

    @property
    def predicted(self) -> bool:
        """Whether ``ratio`` is a prediction, and no measurement."""
        return self.age > 0

    @property
    def unbounded(self) -> bool:
        """Whether the step moves nothing that this radius looks at, so that no length is too long."""
        return self.ratio == 0.0 and not self.predicted

    @property
    def finite(self) -> bool:
        """Whether the ratio tells what to do."""
        return math.isfinite(self.ratio) or self.uphill
