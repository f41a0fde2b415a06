"""The laws that the drift experiments compare: by name, and as a real guard."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.optim import Optimizer

from safestep.guard import Guard
from safestep.policy import Throttle, Watch
from safestep.radius import CurvatureRadius, SecantCurvature
from safestep.wiring import attach

NONE, CURVATURE = "none", "curvature"
SECANT: Mapping[str, int] = {"secant-0": 0, "secant-1": 1, "secant-2": 2}
"""The published laws, by their order."""
LAWS = (NONE, *SECANT, CURVATURE)
WORDS: Mapping[str, str] = {
    NONE: "no throttle",
    **{law: f"secant, order {order}" for law, order in SECANT.items()},
    CURVATURE: "curvature on the batch",
}
"""In the words of tables and pictures."""


def guard_of(law: str, chi: float, model: nn.Module, optimizer: Optimizer) -> Guard:
    """Attach the guard of a law to a regression with half the squared error; under "none" it only watches.

    Args:
        law: one of `LAWS`.
        chi: the aim, in (0, 2).
        model: the student.
        optimizer: steps it.
    """
    if law in SECANT:
        policy, radius = Throttle(chi=chi, order=SECANT[law]), SecantCurvature()
    else:
        policy, radius = Throttle(chi=chi), CurvatureRadius("half_mse")
    return attach(model, optimizer, radius=radius, policy=Watch(policy) if law == NONE else policy, history=0)
