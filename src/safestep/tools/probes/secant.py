"""The probe of the secant curvature, and of the scale that the published law would take from it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from safestep.forward import Seen
from safestep.formulas.throttle import order_0, running_mean, secant_curvature
from safestep.record import StepReport
from safestep.step import Parameters, Step
from safestep.tools.probes.vectors import difference, gradients, norm


class Secant:
    r"""Records the secant curvature between this step and the one before, its running mean, and the published alpha.

    Equation:
        ``C = ||g_t - g_{t-1}|| / ||theta_t - theta_{t-1}||``, ``S = (1 - beta) S + beta C``, ``C^ = max(C, S)``,
        ``alpha_would = clip(chi / (C^ ||p|| / ||g||), 0, 1)``; for plain SGD ``||p|| / ||g||`` is ``eta``.

    Columns: ``curvature_proxy`` is C, ``curvature_ema`` S, ``curvature_for_control`` C^. ``alpha_would`` is of the law of
    order 0 whatever the guard does; what the guard's own policy stands for is the column ``would_scale``.

    Args:
        chi: the aim, in (0, 2).
        beta: share of the newest curvature in the mean, in [0, 1].

    Raises:
        ValueError: outside these ranges.

    Note:
        At the first step there is nothing to compare: C = 0 and ``alpha_would`` = 1. Where the parameters did not move
        since the last step, C stays what it was. It keeps a copy of gradient and parameters from step to step.

    Source:
        M. Blanco Valentin, ENABOL / kappa, "Experiment 000: One-Layer Global Throttle Sanity Check", repository
        manuelblancovalentin/kappa_budgeting.
    """

    def __init__(self, chi: float = 1.5, beta: float = 0.05) -> None:
        if not 0.0 < chi < 2.0 or not 0.0 <= beta <= 1.0:
            raise ValueError(f"chi={chi!r}, beta={beta!r}: expected chi in (0, 2) and beta in [0, 1]")
        self._chi, self._beta = chi, beta
        self._start: Parameters = {}
        self._gradients: Parameters = {}
        self._curvature = self._mean = 0.0

    def __call__(self, step: Step, seen: Seen, report: StepReport) -> Mapping[str, float]:
        """Return the curvatures and ``alpha_would``."""
        gradient = {key: value.detach().clone() for key, value in gradients(step).items()}
        start = {key: value.clone() for key, value in step.start.items()}  # its own memory goes to the next step
        distance = norm(difference(start, self._start).values())
        if distance != 0.0:
            change = norm(difference(gradient, self._gradients).values())
            self._curvature = float(secant_curvature(change, distance))
        self._start, self._gradients = start, gradient
        self._mean = float(running_mean(self._mean, self._curvature, self._beta))
        highest = max(self._curvature, self._mean)
        length = norm(gradient.values())
        margin = highest * report.step_length / length if length > 0.0 else math.nan
        return {
            "curvature_proxy": self._curvature,
            "curvature_ema": self._mean,
            "curvature_for_control": highest,
            "alpha_would": float(order_0(margin, self._chi)),
        }
