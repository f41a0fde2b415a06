"""The guard of every row is the guard that `safestep.attach` puts on one run."""

from __future__ import annotations

import contextlib
import math
from functools import partial

import pytest
import torch

import safestep
from safestep import Cap, HessianRadius, Pin, Status, Throttle, Watch
from safestep.descent import PLANE, Batches, Bowls, Gaussian, Rosenbrock, Saddle, simulate
from safestep.descent.rows import RowGuard
from safestep.errors import PoisonedOptimizerError

POLICIES = {
    "cap": Cap(0.75),
    "cap-schedule": Cap(lambda step: 1 / (1 + step)),
    "endless": Cap(math.inf),
    "pin": Pin(0.5),
    "throttle": Throttle(chi=1.5),
    "throttle-low": Throttle(low=0.05, high=0.9),
    "throttle-1": Throttle(order=1, start=1.0),
    "throttle-2": Throttle(order=2),
    "quantum": Throttle(quantum=0.05),
    "watch": Watch(),
}
OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.4),
    "momentum": partial(torch.optim.SGD, lr=0.3, momentum=0.9),
    "adam": partial(torch.optim.Adam, lr=0.5),
}
STARTS = torch.tensor([[-1.0, 0.9], [0.4, 1.2], [1.5, -0.3]], dtype=torch.float64)


class Point(torch.nn.Module):
    def __init__(self, start):
        super().__init__()
        self.x = torch.nn.Parameter(start.clone())

    def forward(self):
        return self.x


def guarded_alone(objective, start, make, policy, steps):
    """One run under a real guard."""
    point = Point(start)
    optimizer = make(point.parameters())

    def loss():
        return objective.value(point()[None])[0]

    guard = safestep.attach(point, optimizer, radius=HessianRadius(loss), policy=policy)
    points = [point.x.detach().clone()]
    with contextlib.suppress(PoisonedOptimizerError):  # the ensemble goes on without the rows that have overflowed
        for _ in range(steps):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
            points.append(point.x.detach().clone())
    guard.detach()
    return torch.stack(points), guard.history


@pytest.mark.filterwarnings("ignore::safestep.errors.SafestepWarning")  # a guard says once that steps are held
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("objective", [Rosenbrock(10.0), Saddle()], ids=lambda one: type(one).__name__)
def test_every_row_walks_as_under_a_real_guard(objective, policy, optimizer):
    together = simulate(
        objective, OPTIMIZERS[optimizer], start=STARTS, runs=3, steps=8, policy=POLICIES[policy], first=0, limit=1e300
    )
    for run, start in enumerate(STARTS):
        alone, _ = guarded_alone(objective, start, OPTIMIZERS[optimizer], POLICIES[policy], 8)
        reach = 1 + alone.abs().amax(1, keepdim=True).cummax(0).values
        near = (reach < 1e6).flatten()  # what runs away doubles its rounding at every step
        assert near[:2].all()
        off = ((together.trace(run)[: len(alone)] - alone).abs() / reach)[near]
        assert off.max() < 1e-7


@pytest.mark.filterwarnings("ignore::safestep.errors.SafestepWarning")
def test_the_shares_are_those_of_the_records():
    made = OPTIMIZERS["momentum"]
    together = simulate(PLANE, made, start=STARTS, runs=3, steps=20, policy=Throttle())
    records = [record for start in STARTS for record in guarded_alone(PLANE, start, made, Throttle(), 20)[1]]
    assert together.shortened == pytest.approx(sum(record.scale < 1 for record in records) / 60)
    assert together.held == pytest.approx(sum(record.status == Status.HELD for record in records) / 60)
    assert together.held > 0


def test_rows_inside_keep_every_bit():
    plain, capped = (simulate(PLANE, noise=Gaussian(), runs=50, steps=30, policy=policy) for policy in (None, Cap(0.3)))
    assert torch.equal(plain.last, capped.last)
    assert capped.shortened == 0.0


def test_the_curvature_is_that_of_the_rows_own_batch():
    """Bowls of one sample each, so that a Newton step of that bowl lands in its bottom: r = 1/2 at rate 1/h."""
    bowls = Bowls(torch.tensor([[0.0], [4.0]]), (2.0,), (1.0,))
    run = simulate(bowls, partial(torch.optim.SGD, lr=5.0), noise=Batches(1), runs=40, steps=1, policy=Cap(0.5))
    assert {round(x, 9) for x in run.last.flatten().tolist()} == {0.0, 4.0}


@pytest.mark.parametrize("policy", [Throttle(), Cap(0.75)])
def test_a_guard_keeps_noisy_runs_at_a_rate_beyond_the_limit(policy):
    options = {"noise": Gaussian(), "runs": 500, "steps": 200}
    wild = simulate(PLANE, partial(torch.optim.SGD, lr=0.7), **options)
    kept = simulate(PLANE, partial(torch.optim.SGD, lr=0.7), policy=policy, **options)
    assert wild.lost == 500
    assert kept.lost == 0
    assert kept.moments.loss[-1] < 10


def test_a_row_that_is_not_finite_stays_and_the_others_go_on():
    guard = RowGuard(Cap(1.0), 3)
    before, after = torch.zeros(3, 2), torch.tensor([[math.inf, 0.0], [1.0, 0.0], [2.0, 0.0]])
    slope, bend = torch.tensor([math.nan, -1.0, -1.0]), torch.tensor([math.nan, 1.0, 8.0])
    assert guard.settle(before, after, slope, bend, 0).tolist() == [[0.0, 0.0], [1.0, 0.0], [0.5, 0.0]]
    assert guard.scales.tolist() == [0.0, 1.0, 0.25]
    assert math.isnan(guard.ratios[0])
