"""A policy asked about one step, in plain numbers."""

from __future__ import annotations

import torch

from safestep import Policy
from safestep.radius.radius import State


def scale_of(policy: Policy, ratio: float, state: State = None, *, length: float = 1.0, step: int = 0):
    """Return the scale that a policy stands for, and its state, as numbers."""
    numbers = torch.tensor([ratio, length], dtype=torch.float64)
    scale, later = policy.scale(*numbers, policy.target_at(step), state)
    return scale.item(), later and {key: value.item() for key, value in later.items()}
