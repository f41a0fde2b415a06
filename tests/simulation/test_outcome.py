"""The outcome of a simulation in words."""

from __future__ import annotations

from functools import partial

import torch

from safestep.descent import PLANE, Bowls, Gaussian, Quadratic, Rosenbrock, distance, simulate
from safestep.simulation.outcome import law_table, outcome, why_no_law


def sgd(rate):
    return partial(torch.optim.SGD, lr=rate)


def test_one_run_tells_its_last_point():
    assert outcome(simulate(PLANE, steps=20)) == "epoch 20, x1: -0.057646, x2: -0.000073"


def test_a_few_runs_tell_each_of_them_and_their_mean():
    ensemble = simulate(PLANE, noise=Gaussian(), runs=3)
    lines = outcome(ensemble).splitlines()
    assert lines[:3] == [ensemble.last_point(run) for run in range(3)]
    assert lines[3].startswith("epoch 50, mean of 3 runs: x1: ")
    assert lines[4].startswith("standard deviations: ")
    assert len(lines) == 5


def test_many_runs_tell_their_mean_alone():
    assert outcome(simulate(PLANE, noise=Gaussian(), runs=9)).startswith("epoch 50, mean of 9 runs: ")


def test_a_run_that_diverged_is_told_shortly_and_why():
    lines = outcome(simulate(PLANE, sgd(100.0), steps=100)).splitlines()
    assert lines[0].endswith("(diverged)")
    assert len(lines[0]) < 70
    assert "1 of 1 runs diverged: the largest rate times the steepest curvature is 400" in lines[1]


def test_runs_that_diverge_by_overflow_are_counted():
    told = outcome(simulate(Rosenbrock(), sgd(1.0), steps=50, runs=20))
    assert "20 of 20 runs diverged" in told
    assert told.count("diverged") == 1


def test_the_law_is_known_for_plain_descent_on_a_quadratic():
    assert why_no_law(simulate(PLANE)) == ""
    assert why_no_law(simulate(Bowls.scattered(10, (2.0, 4.0), (-5.0, -2.0)))) == ""
    assert "Adam is not plain SGD" in why_no_law(simulate(PLANE, torch.optim.Adam))
    assert "f is not known to be a quadratic" in why_no_law(simulate(Rosenbrock(), sgd(1e-4)))


def test_the_table_holds_the_law_and_the_distance():
    ensemble = simulate(PLANE, noise=Gaussian(), runs=200)
    columns = [list(column.cells) for column in law_table(ensemble).columns]
    assert columns[0] == ["mean x1", "mean x2", "variance x1", "variance x2", "mean f"]
    apart = distance(ensemble)
    assert columns[1][-1] == f"{ensemble.moments.loss[-1].item():.6g}"
    assert columns[2][2] == f"{apart.law.variance[-1, 0].item():.6g}"
    assert [float(cell) for cell in columns[3][:2]] == [round(z, 2) for z in apart.mean[-1].tolist()]


def test_of_many_variables_the_table_tells_the_loss_alone():
    ensemble = simulate(Quadratic((1.0,) * 7, start=(1.0,) * 7), noise=Gaussian(), runs=10)
    assert list(law_table(ensemble).columns[0].cells) == ["mean f"]
