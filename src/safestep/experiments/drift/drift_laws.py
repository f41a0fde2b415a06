"""The laws that the drift experiments compare: by name, and as a real guard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from safestep.guard.attach import attach
from safestep.guard.guard import Guard
from safestep.policy import Throttle, Watch
from safestep.policy.throttle import Order
from safestep.radius import CurvatureRadius, Radius, SecantCurvature

NONE, CURVATURE = "none", "curvature"
SECANT: Mapping[str, Order] = {"secant-0": 0, "secant-1": 1, "secant-2": 2}
"""The published laws, by their order."""
LAWS = (NONE, *SECANT, CURVATURE)
WORDS: Mapping[str, str] = {
    NONE: "no throttle",
    **{law: f"secant, order {order}" for law, order in SECANT.items()},
    CURVATURE: "curvature on the batch",
}
"""In the words of tables and pictures."""


@dataclass(frozen=True)
class Protocol:
    """What every cell of a drift map has in common.

    Attributes:
        chi: the aim of the throttle, in (0, 2).
        steps: to take, of full batches.
        limit: a loss above it has diverged, and the run stops there.
    """

    chi: float
    steps: int
    limit: float


def guard_of(law: str, chi: float, model: nn.Module, optimizer: Optimizer) -> Guard:
    """Attach the guard of a law to a regression with half the squared error; under "none" it only watches.

    Args:
        law: one of `LAWS`.
        chi: the aim, in (0, 2).
        model: the student.
        optimizer: steps it.
    """
    policy = Throttle(chi=chi, order=SECANT.get(law, 0))
    radius: Radius = SecantCurvature() if law in SECANT else CurvatureRadius("half_mse")
    return attach(model, optimizer, radius=radius, policy=Watch(policy) if law == NONE else policy, history=0)
