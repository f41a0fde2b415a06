"""The tightest of several radii: each with a target of its own, whichever binds."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from safestep.radius.across_ranks import measured
from safestep.radius.radius import Needs, Radius, State
from safestep.recording.proposal import Proposal
from safestep.records.reading import Reading


@dataclass(frozen=True, init=False)
class Tightest(Radius):
    r"""Limits a step by several radii at once.

    Equation:
        ``r = max_i r_i / target_i``, so that ``r <= 1`` keeps every ``r_i <= target_i``.

    Args:
        limits: the targets of the radii, each a positive number.

    Attributes:
        limits: pairs of a radius and its target.

    Raises:
        ValueError: at construction, without a radius, or for a target that is not a positive number.
        TypeError: at construction, for something that is no radius.

    Example:
        >>> from safestep import CurvatureRadius, SoftmaxRadius
        >>> Tightest({SoftmaxRadius(): 1.0, CurvatureRadius(): 0.75}).limits[1][1]
        0.75

    Note:
        Which one binds is the first word of ``method``. A step that is uphill for one of them is held. Measured
        exactly, the softmax and the curvature radius share one derivative of the logits.
    """

    limits: tuple[tuple[Radius, float], ...]

    def __init__(self, limits: Mapping[Radius, float]) -> None:
        if not limits:
            raise ValueError("Tightest({}): expected at least one radius with its target")
        for radius, target in limits.items():
            if not isinstance(radius, Radius):
                raise TypeError(f"Tightest: {radius!r} is no radius; expected {{CurvatureRadius(): 0.75, ...}}")
            if not 0.0 < target < math.inf:
                raise ValueError(f"Tightest: target {target!r} of {type(radius).__name__}: expected a positive number")
        object.__setattr__(self, "limits", tuple(limits.items()))

    agrees_across_ranks: ClassVar[bool] = True

    def __str__(self) -> str:
        """Return it as one writes it."""
        limits = ", ".join(f"{radius}: {target:g}" for radius, target in self.limits)
        return f"{type(self).__name__}({{{limits}}})"

    @property
    def needs(self) -> Needs:
        """What any of them needs."""
        return functools.reduce(operator.or_, (radius.needs for radius in self.parts))

    @property
    def follow_schedule(self) -> bool:  # type: ignore[override]  # read only, as all of it
        """Whether any of them does."""
        return any(radius.follow_schedule for radius in self.parts)

    @property
    def parts(self) -> tuple[Radius, ...]:
        """The radii, without their targets."""
        return tuple(radius for radius, _ in self.limits)

    def exact(self) -> Tightest:
        """Return the same with exact methods, for an audit."""
        return Tightest({radius.exact(): target for radius, target in self.limits})

    def read_norms(self, proposal: Proposal, state: State) -> None:
        """Read off the step what the radii need to know of it."""
        for index, (radius, target) in enumerate(self.limits):
            radius.read_norms(_aimed(proposal, target), _part(state, index))

    def measure(self, proposal: Proposal, state: State) -> tuple[Reading, State]:
        """Return the reading of the radius that binds, in units of its target. See `Radius.measure`."""
        forwards = proposal.forwards
        readings, states, shared = [], [], forwards.shared
        forwards.shared = {} if shared is None else shared
        try:
            for index, (radius, target) in enumerate(self.limits):
                reading, later = measured(radius, _aimed(proposal, target), _part(state, index))
                name = type(radius).__name__
                ratio, error = reading.ratio / target, reading.standard_error / target
                readings.append(replace(reading, ratio=ratio, standard_error=error, method=f"{name}: {reading.method}"))
                states.append(later)
        finally:
            forwards.shared = shared  # of this step alone: the same forwards may be asked about another one (an audit)
        # nan binds: whatever cannot be measured is not inside
        binding = max(readings, key=lambda reading: (math.isnan(reading.ratio), reading.ratio))
        kl = next((reading.kl for reading in readings if not math.isnan(reading.kl)), math.nan)
        share = next((reading.fresh_share for reading in readings if not math.isnan(reading.fresh_share)), math.nan)
        return replace(binding, kl=kl, fresh_share=share), {"parts": states}


def _aimed(proposal: Proposal, target: float) -> Proposal:
    """Return the same step, aimed at a radius's own target."""
    return replace(proposal, target=proposal.aim * target)


def _part(state: State, index: int) -> State:
    part: State = None if state is None else state["parts"][index]
    return part
