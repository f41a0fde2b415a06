"""What the drift runs come to: one run from its losses, many seeds from their rows."""

from __future__ import annotations

import math

import pytest

from safestep.experiments.drift.drift_outcome import outcome, over_seeds
from safestep.lab.affine_teacher import AffineTeacher

TEACHER = AffineTeacher().drifted(4.0)


def of(losses, alphas=None, run="C", law="secant", seed=0):
    alphas = [0.1] * len(losses) if alphas is None else alphas
    name = {"label": f"{run} {law}", "run": run, "law": law, "gain": 4.0, "seed": seed}
    return {**name, **outcome(losses, alphas, 0, TEACHER, 0.5, 1.5)}


def test_a_run_that_only_goes_down():
    row = of([4.0, 2.0, 1.0, 5e-5])
    assert not row["diverged"]
    assert (row["peak_over_first"], row["highest_rise"], row["steps_to_1e-4"]) == (1.0, 0.0, 3)
    assert row["steps_above_limit"] == 0
    assert math.isnan(row["alpha_settled"])


def test_a_peak_and_where_it_rose():
    row = of([4.0, 8.0, 1.0, 1.5], [1.0, 0.1, 0.1, 0.3])
    assert (row["peak_loss"], row["peak_over_first"], row["highest_rise"]) == (8.0, 2.0, 4.0)
    assert row["steps_to_1e-4"] is None
    assert row["steps_above_limit"] == 2  # margin 8.66: 1 and 0.3 are beyond 2 of it, 0.1 is not
    assert row["steps_scaled"] == 3


@pytest.mark.parametrize("losses", [[1.0, math.nan], [1.0, math.inf], [1.0, 10.5]])
def test_what_has_diverged(losses):
    assert of(losses)["diverged"]


def test_not_a_number_is_the_largest_loss():
    assert of([1.0, math.nan])["peak_loss"] == math.inf
    assert of([1.0, math.nan, 0.5])["highest_rise"] == 1.0


def test_growth_is_counted_from_the_second_step_and_as_long_as_it_is_finite():
    row = of([1.0, 3.0, 30.0, 330.0, math.inf], run="B", law="none")
    assert (row["growth_low"], row["growth_high"]) == (10.0, 11.0)


def test_over_seeds_the_worst_is_told():
    rows = [of([1.0, 50.0, 1e-5], seed=0), of([1.0, 60.0, 0.5], seed=1), of([1.0, 40.0, 2e-5, 3e-5], seed=2)]
    (summary,) = over_seeds(rows)
    assert (summary["seeds"], summary["diverged"], summary["peak_over_first"]) == (3, 0, 60.0)
    assert summary["highest_rise"] == 1.0
    assert (summary["steps_median"], summary["steps_range"]) == (2.0, "2 to never")
    assert summary["growth_off"] is None
    assert summary["second_off"] == pytest.approx(abs(0.1 / (1.5 / (0.5 * TEACHER.lambda_max)) - 1))
    assert summary["settled_off"] == "inf"  # no run got to step 50
