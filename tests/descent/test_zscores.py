"""Ensembles against the exact law: inside its sampling error, and outside where the law is another's."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from safestep import Cap
from safestep.descent import (
    PLANE,
    Batches,
    Beale,
    Bowls,
    DescentError,
    Gaussian,
    LeastSquares,
    Quadratic,
    distance,
    simulate,
)

RUNS = 20_000
WORST = 4.0
"""Standard errors, as the issue asks: of the dozens of numbers that a test compares, one would be beyond by chance in
some hundred seeds; seeds are fixed."""
SCHEDULES = {
    "constant": (lambda t: 1.0, 50),
    "inverse": (lambda t: 1 / (1 + 0.1 * t), 50),
    "polynomial": (lambda t: (1 + 0.1 * t) ** -0.5, 50),
    "piecewise": (lambda t: 0.1 ** (t // 20), 50),
    "exponential": (lambda t: math.exp(-0.1 * t), 1000),
}
NOISES = {
    "one": (PLANE, Gaussian()),
    "batch": (PLANE, Gaussian(2.0, batch=16)),
    "tilted": (Quadratic(((3.0, 1.0), (1.0, 2.0)), (4.0, -1.0)), Gaussian(covariance=((2.0, -1.2), (-1.2, 1.0)))),
    "raised": (Quadratic((3.0,), (1.0,), least=-7.0), Gaussian()),
    "bowls": (Bowls.scattered(30, (2.0, 4.0), (-5.0, -2.0)), Batches(4)),
    "distinct": (Bowls.scattered(30, (2.0, 4.0), (-5.0, -2.0)), Batches(4, "distinct")),
    "epochs": (Bowls.scattered(30, (2.0, 4.0), (-5.0, -2.0)), Batches(4, "epochs")),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_meets_the_law_at_its_end_and_on_its_way(name):
    schedule, steps = SCHEDULES[name]
    found = distance(simulate(PLANE, schedule=schedule, noise=Gaussian(), steps=steps, runs=RUNS, records=11))
    assert found.worst.shape == (11,)
    assert found.worst.max() < WORST


@pytest.mark.parametrize("name", NOISES)
def test_every_noise_meets_the_law(name):
    objective, noise = NOISES[name]
    found = distance(simulate(objective, noise=noise, steps=40, runs=RUNS, records=6, seed=1))
    assert found.worst.max() < WORST


def test_noise_that_grows_with_the_error_meets_the_law():
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(25, 2, generator=generator)
    line = LeastSquares(inputs, inputs.sum(1) + torch.randn(25, generator=generator), (3.0, 3.0))
    assert distance(simulate(line, noise=Batches(3), steps=20, runs=RUNS, records=6)).worst.max() < WORST


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_noiseless_run_is_no_standard_error_away(dtype):
    found = distance(simulate(PLANE, steps=300, dtype=dtype))
    assert found.worst.max() < 1.0


def test_another_law_is_far_away():
    """A distance that is small for wrong laws, too, would show nothing: other noise, other counter, other draw."""
    ensemble = simulate(PLANE, schedule=SCHEDULES["exponential"][0], noise=Gaussian(), steps=50, runs=RUNS)

    def seen_as(one=ensemble, **changes):
        return distance(replace(one, setting=replace(one.setting, **changes))).worst[-1].item()

    assert seen_as() < WORST
    assert seen_as(noise=Gaussian(1.05)) > 2 * WORST
    assert seen_as(rates=lambda: 0.1 * torch.exp(-0.1 * torch.arange(1, 51))) > 100
    bowls = simulate(NOISES["bowls"][0], noise=Batches(4), steps=40, runs=RUNS)
    assert seen_as(bowls, noise=Batches(4, "distinct")) > WORST
    assert seen_as(bowls, noise=Batches(4, "epochs")) > 10 * WORST


def test_a_rate_beyond_the_limit_still_meets_the_law_while_it_is_finite():
    ensemble = simulate(PLANE, partial(torch.optim.SGD, lr=0.6), noise=Gaussian(), steps=60, runs=RUNS, records=4)
    assert ensemble.lost > 0
    assert distance(ensemble).worst.max() < WORST


def test_runs_that_are_not_finite_are_infinitely_far_from_a_law_that_is():
    ensemble = simulate(PLANE, noise=Gaussian(), runs=50, steps=5)
    lost = replace(ensemble.moments, loss=torch.full_like(ensemble.moments.loss, math.nan))
    assert distance(replace(ensemble, moments=lost)).worst[-1] == math.inf


def test_one_run_has_no_variance_to_compare():
    found = distance(simulate(PLANE, noise=Gaussian(), steps=20))
    assert not found.variance.any()
    assert found.worst.max() < WORST


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objective": Beale()}, "no exact law for Beale"),
        ({"optimizer": torch.optim.Adam}, "Adam is not plain SGD"),
        ({"optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9)}, "SGD with momentum=0.9 is not plain"),
        ({"optimizer": partial(torch.optim.SGD, lr=0.1, weight_decay=0.1)}, "weight_decay"),
        ({"policy": Cap()}, "a policy changes the steps"),
        ({"start": torch.zeros(3, 2), "runs": 3}, "different points"),
    ],
)
def test_where_no_law_holds_that_is_said(options, said):
    with pytest.raises(DescentError, match=said):
        distance(simulate(**{"objective": PLANE, "steps": 2, **options}))
