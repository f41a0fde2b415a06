"""What the steps of a run after a drift come to, beside what theory says of them; and many seeds of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from safestep.experiments.runner.experiment import Row
from safestep.formulas.throttle_laws import order_0
from safestep.lab.affine_teacher import AffineTeacher
from safestep.records.report import number, plain

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
        teacher: of the data of the run, drifted where they are; ``lambda`` is of its Hessian.
        rate: the learning rate ``eta``.
        chi: the aim of the throttle.

    Returns:
        Losses, scales and counts by name, among them ``highest_rise``, the largest loss that the next one was above;
        ``growth_low`` and ``growth_high``, the least and the largest factor between two losses in a row, from the
        second step on; ``steps_to_1e-4``, the first step that began below that loss; ``steps_above_limit`` with
        ``alpha eta lambda_max > 2``. And what theory says:

        * ``growth_theory = (1 - eta lambda_max)^2``, without a throttle.
        * ``alpha_theory = min(1, chi / (eta lambda_max))``, of the second step under the secant law.
        * ``settled_theory = 2 / (eta (lambda_max + lambda_min))``, of step 50: both modes then shrink alike.

    Example:
        >>> row = outcome([1.0, 4.0, 16.0], [1.0, 1.0, 1.0], 0, AffineTeacher(), 0.5, 1.5)
        >>> row["diverged"], row["peak_over_first"], row["growth_high"], row["steps_to_1e-4"]
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
        "alpha_second": alphas[1] if len(alphas) > 1 else math.nan,
        "alpha_theory": float(order_0(margin, chi)),
        "alpha_settled": alphas[50] if len(alphas) > 50 else math.nan,
        "settled_theory": 2.0 / (rate * (teacher.lambda_max + teacher.lambda_min)),
        "steps_to_1e-4": next((step for step, loss in enumerate(losses) if loss < 1e-4), None),
        "steps_above_limit": sum(alpha * margin > 2.0 for alpha in alphas),
        "steps": len(losses),
        "steps_scaled": sum(alpha < 1.0 for alpha in alphas),
        "steps_held": held,
        "lambda_max": teacher.lambda_max,
        "lambda_min": teacher.lambda_min,
    }


def over_seeds(rows: Sequence[Row]) -> list[Row]:
    """Return one summary for every label, in the order of the rows.

    Args:
        rows: outcomes, each with ``label``, ``run``, ``law``, ``gain`` and ``seed``.

    Returns:
        Summaries: the worst ``peak_over_first`` and ``highest_rise``; median and range of the steps to a loss of 1e-4
        (a seed that never got there counts as inf); and the largest relative distances from theory, where a law
        promises something: ``growth_off`` of run B, ``second_off`` and ``settled_off`` of the secant law.
    """
    labels = dict.fromkeys(row["label"] for row in rows)
    summaries: list[Row] = plain([_summary([row for row in rows if row["label"] == label]) for label in labels])
    return summaries


def _summary(rows: Sequence[Row]) -> Row:
    steps = [math.inf if row["steps_to_1e-4"] is None else float(row["steps_to_1e-4"]) for row in rows]
    low, high = ("never" if math.isinf(count) else f"{count:.0f}" for count in (min(steps), max(steps)))
    unlimited, secant = rows[0]["run"] == "B", rows[0]["law"] == "secant"
    return {
        **{key: rows[0][key] for key in ("label", "run", "law", "gain")},
        "seeds": len(rows),
        "diverged": sum(bool(row["diverged"]) for row in rows),
        "peak_over_first": _most([number(row["peak_over_first"]) for row in rows]),
        "highest_rise": _most([number(row["highest_rise"]) for row in rows]),
        "growth_off": _off(rows, "growth_theory", "growth_low", "growth_high") if unlimited else None,
        "second_off": _off(rows, "alpha_theory", "alpha_second") if secant else None,
        "settled_off": _off(rows, "settled_theory", "alpha_settled") if secant else None,
        "steps_median": statistics.median(steps),
        "steps_range": f"{low} to {high}",
        "above_limit_median": float(statistics.median(row["steps_above_limit"] for row in rows)),
        "held": sum(row["steps_held"] for row in rows),
    }


def _off(rows: Sequence[Row], theory: str, *keys: str) -> float:
    """Return the largest relative distance from theory."""
    return _most([abs(number(row[key]) / number(row[theory]) - 1.0) for row in rows for key in keys])


def _most(values: Sequence[float]) -> float:
    """Return the largest; nan is as far as can be."""
    return max(math.inf if math.isnan(value) else value for value in values)
