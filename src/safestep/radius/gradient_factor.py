"""By what the gradients of the parameters were multiplied since backward, on all ranks together."""

from __future__ import annotations

import math

from safestep.radius.across_ranks import mean
from safestep.recording.forwards import Forwards
from safestep.recording.gradient_witness import factor_of
from safestep.recording.proposal import Proposal

WITNESSES = 3
"""How many numbers are looked at: nan for those that are not there."""


def gradient_factor(proposal: Proposal) -> float:
    """Return the factor; nan where it cannot be told."""
    left, now = witnessed(proposal.forwards)  # of sharded parameters nan, and yet all ranks ask alike
    return factor_of(mean(proposal, lambda: left, WITNESSES), now)


def witnessed(forwards: Forwards) -> tuple[list[float], list[float]]:
    """Return what backward left of the witnesses, without the loss scale, and what there is now; nan for none."""
    numbers = [] if forwards.witness is None else forwards.witness.numbers()
    half = len(numbers) // 2
    filled = [math.nan] * (WITNESSES - half)
    return [number / forwards.loss_scale for number in numbers[:half]] + filled, numbers[half:] + filled
