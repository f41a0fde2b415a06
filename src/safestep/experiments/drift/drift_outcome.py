"""What the steps of one run after a drift come to, beside what theory says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from safestep.formulas.throttle import order_0
from safestep.lab.affine_teacher import AffineTeacher

SETTLED = 50
"""The step, from 0, at which the throttle has settled."""
LOW_LOSS = 1e-4
_LIMIT = 2.0
"""The margin above which gradient descent diverges."""
_LOST = 10.0
"""A run has diverged that ends at more than so many times its first loss; small batches alone do not do that."""


def outcome(
    losses: Sequence[float], alphas: Sequence[float], held: int, teacher: AffineTeacher, rate: float, chi: float
) -> dict[str, Any]:
    r"""Return what a run comes to.

    Args:
        losses: of each step, before it; at least one.
        alphas: the scale of each step.
        held: how many steps were held.
        teacher: of the data of the run, drifted where they are.
        rate: the learning rate ``eta``.
        chi: the aim of the throttle.

    Returns:
        Numbers by name. With ``lambda`` of the teacher's data:

        * ``first_loss``, ``peak_loss``, ``final_loss``; ``peak_over_first``; ``diverged``: a loss was not finite, or
          the last is above ten times the first.
        * ``highest_rise``: the largest loss that the next one was above, 0 for a run that only went down.
        * ``growth_low``, ``growth_high``: the least and the largest factor between two losses in a row, from the second
          step on; ``growth_theory`` is ``(1 - eta lambda_max)^2``.
        * ``alpha_first``, ``alpha_second``, ``alpha_settled`` (step 50); ``alpha_theory`` is
          ``min(1, chi / (eta lambda_max))``, ``settled_theory`` ``2 / (eta (lambda_max + lambda_min))``, both modes
          then shrink alike.
        * ``steps_to_1e-4``: the first step that began below that loss; None for none.
        * ``steps_above_limit``: steps with ``alpha eta lambda_max > 2``.
        * ``steps``, ``steps_scaled`` (alpha below 1) and ``steps_held``.

    Example:
        >>> found = outcome([1.0, 4.0, 16.0], [1.0, 1.0, 1.0], 0, AffineTeacher(), 0.5, 1.5)
        >>> found["diverged"], found["peak_over_first"], found["growth_high"], found["steps_to_1e-4"]
        (True, 16.0, 4.0, None)
    """
    finite = all(map(math.isfinite, losses))
    factors = [after / before for before, after in pairwise(losses[1:]) if math.isfinite(after) and before > 0.0]
    margin = rate * teacher.lambda_max
    peak = max(losses) if finite else math.inf
    return {
        "diverged": not (finite and losses[-1] <= _LOST * losses[0]),
        "first_loss": losses[0],
        "peak_loss": peak,
        "final_loss": losses[-1],
        "peak_over_first": peak / losses[0],
        "highest_rise": max((before for before, after in pairwise(losses) if not after <= before), default=0.0),
        "growth_low": min(factors, default=math.nan),
        "growth_high": max(factors, default=math.nan),
        "growth_theory": (1.0 - margin) ** 2,
        "alpha_first": alphas[0],
        "alpha_second": _at(alphas, 1),
        "alpha_theory": float(order_0(margin, chi)),
        "alpha_settled": _at(alphas, SETTLED),
        "settled_theory": 2.0 / (rate * (teacher.lambda_max + teacher.lambda_min)),
        "steps_to_1e-4": next((step for step, loss in enumerate(losses) if loss < LOW_LOSS), None),
        "steps_above_limit": sum(alpha * margin > _LIMIT for alpha in alphas),
        "steps": len(losses),
        "steps_scaled": sum(alpha < 1.0 for alpha in alphas),
        "steps_held": held,
        "lambda_max": teacher.lambda_max,
        "lambda_min": teacher.lambda_min,
    }


def _at(alphas: Sequence[float], step: int) -> float:
    return alphas[step] if step < len(alphas) else math.nan
