"""How much of the descent that a batch promises along its own step the next batch finds: the fresh share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from safestep.radius.gradient_factor import gradient_factor
from safestep.radius.radius import State
from safestep.recording.proposal import Proposal
from safestep.records.reading import Reading

_KEEP = 0.9
"""What a step leaves of the mean: it is over about ten steps."""
_LEAST, _MOST = 0.2, 2.0
"""The smallest share that is gone by (models that interpolate their data have less, and train well on longer steps);
and the largest of one step that counts."""
_SAME = 0.05
"""Relative distance up to which two ways to g.p agree; beyond it the gradients hold more than this loss."""


class Along(NamedTuple):
    """The quadratic model of a loss along a step: ``g.p`` and ``p.Gp``, in units of the loss; nan where not known."""

    slope: float = math.nan
    bend: float = math.nan

    def agrees(self, slope: float) -> bool:
        """Return whether another way to ``g.p`` led to about the same."""
        return abs(slope - self.slope) <= _SAME * abs(self.slope)


@dataclass(frozen=True, slots=True)
class FreshSlope:
    r"""The slopes along the last steps, as their own batches promised them and as the next ones found them.

    Equation:
        A step ``q`` from ``theta`` was made of the gradient ``g`` of one batch, whose noise it shares, so that ``-g.q``
        promises too much. The next batch's gradient ``g'`` at ``theta + q`` is free of that noise, and to second order
        ``g'.q = (fresh slope at theta) + q.Gq``. The share is the mean of ``nu_t = (g'.q - q.Gq) / (g.q)`` over about
        the last ten steps: ``nu <- 0.9 nu + 0.1 nu_t``, with each ``nu_t`` within [-1, 2], so that one step that
        left the quadratic model does not decide for ten.

    Attributes:
        mean: ``nu``; it starts at one half.
        slope: ``g.p`` of the last step that was measured, as it was proposed; nan before the first.
        bend: ``p.Gp`` of it.
        index: its number.

    Example:
        >>> known = FreshSlope(mean=0.5, slope=-2.0, bend=1.0, index=7)
        >>> later = known.after(index=7, scale=1.0, product=0.6)  # found 0.6 - 1 = -0.4 of -2
        >>> round(later.share, 6)  # 0.9 * 0.5 + 0.1 * 0.2
        0.47
    """

    mean: float = 0.5
    slope: float = math.nan
    bend: float = math.nan
    index: int = -1

    @property
    def share(self) -> float:
        """``nu``, within [0.2, 1]."""
        return min(1.0, max(_LEAST, self.mean))

    def after(self, index: int, scale: float, product: float) -> FreshSlope:
        """Return what is known once the next batch has told the slope along the last step, as it was applied.

        Args:
            index: number of that step; of another than was measured nothing is known.
            scale: by what it had been multiplied.
            product: ``g'.q``; where it is not finite, or the step did not go down, nothing is learned.
        """
        promised, found = scale * self.slope, product - scale * scale * self.bend
        if index != self.index or not (promised < 0.0 and math.isfinite(found)):
            return self
        new = min(_MOST, max(-1.0, found / promised))
        return replace(self, mean=_KEEP * self.mean + (1.0 - _KEEP) * new)

    def remember(self, along: Along, index: int) -> FreshSlope:
        """Return this with a step that was measured; where `Along` is nan it is left out."""
        return replace(self, slope=along.slope, bend=along.bend, index=index)

    def as_state(self) -> dict[str, Any]:
        """Return plain data, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any] | None) -> FreshSlope:
        """Return what a checkpoint holds; None is nothing."""
        return cls(**state or {})


def by_fresh_slope(
    power: float,
    proposal: Proposal,
    state: State,
    measure: Callable[[Proposal, State], tuple[Reading, dict[str, Any], Along]],
) -> tuple[Reading, State]:
    """Return the reading of a radius with ``nu^power`` of the slope that this batch promises, and its state.

    Args:
        power: 0 for the batch's own slope, 1 for that of a fresh batch.
        proposal: the step. One that was measured before (an audit) goes by the share it had then.
        state: of the radius.
        measure: by the batch's own slope.
    """
    again, known = not math.isnan(proposal.fresh_share), FreshSlope.from_state((state or {}).get("fresh"))
    share, vitals, factor = proposal.fresh_share, proposal.step.vitals, math.nan
    if not again:
        factor = gradient_factor(proposal)
        known = known.after(*proposal.step.last, vitals.last_product / factor)
        share = known.share
    weight = share**power
    reading, later, along = measure(replace(proposal, target=proposal.target * weight), state)
    if not again:
        slope = vitals.directional_derivative
        seen = slope is not None and along.agrees(slope / factor)  # else the gradients hold more than this loss
        known = known.remember(along if seen else Along(), proposal.step.index)
    error = reading.standard_error / weight
    reading = replace(reading, ratio=reading.ratio / weight, standard_error=error, fresh_share=share)
    return reading, {**later, "fresh": known.as_state()}
