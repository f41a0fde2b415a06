"""The secant curvature, and the scale that the published law would take from it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from safestep.formulas.throttle_laws import order_0
from safestep.radius.radius import State
from safestep.radius.secant import SecantCurvature
from safestep.recording.forwards import Forwards
from safestep.recording.proposal import Proposal
from safestep.recording.step import Step
from safestep.records.report import StepReport


class Secant:
    r"""Records the secant curvature between this step and the one before, its running mean, and the published alpha.

    ======================  ==================================================================================
    curvature_proxy         ``C = ||g_t - g_{t-1}|| / ||theta_t - theta_{t-1}||``; 0 at the first step
    curvature_ema           ``S = (1 - beta) S + beta C``
    curvature_for_control   ``max(C, S)``
    alpha_would             ``clip(chi / (max(C, S) ||p|| / ||g||), 0, 1)``; ``||p|| / ||g|| = eta`` for plain SGD
    ======================  ==================================================================================

    ``alpha_would`` is of the published law of order 0, whatever the guard does; what the guard's own policy stands for
    is the column ``would_scale``. Measured as `SecantCurvature` does, whose notes hold here.

    Args:
        chi: the aim, in (0, 2).
        beta: share of the newest curvature in the mean, in [0, 1].

    Raises:
        ValueError: outside these ranges.
    """

    def __init__(self, chi: float = 1.5, beta: float = 0.05) -> None:
        if not 0.0 < chi < 2.0:
            raise ValueError(f"chi={chi!r}: expected a margin in (0, 2); 2 is the limit of stability")
        self._chi, self._radius = chi, SecantCurvature(beta)
        self._state: State = None

    def __call__(self, step: Step, forwards: Forwards, report: StepReport) -> Mapping[str, float]:
        """Return the curvatures and ``alpha_would``."""
        reading, state = self._radius.measure(Proposal(step, forwards), self._state)
        self._state = state
        # of a gradient that is not finite nothing is known, and nothing of it is remembered
        curvature = mean = math.nan
        if state is not None and reading.finite:
            curvature, mean = float(state["curvature"]), float(state["mean"])
        return {
            "curvature_proxy": curvature,
            "curvature_ema": mean,
            "curvature_for_control": max(curvature, mean),
            "alpha_would": float(order_0(2.0 * reading.ratio, self._chi)),
        }
