"""The published secant curvature, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from safestep import MeasurementError, SecantCurvature, Status, Throttle, Watch, attach


def quadratic(diagonal, start):
    """A model whose loss is sum of d_i w_i^2 / 2: g = d w."""
    model = nn.Linear(len(diagonal), 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([start], dtype=torch.float64))
    scale = torch.tensor(diagonal, dtype=torch.float64)
    return model, lambda: (scale * model.weight.square()).sum() / 2


def run(diagonal, start, steps, policy, *, lr=0.1, radius=None):
    model, loss = quadratic(diagonal, start)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    guard = attach(model, optimizer, radius=radius or SecantCurvature(), policy=policy)
    places = []
    for _ in range(steps):
        optimizer.zero_grad()
        places.append(model.weight.detach().clone().flatten())
        loss().backward()
        optimizer.step()
    return guard, places


def test_the_margin_is_the_published_one():
    diagonal, lr = torch.tensor([3.0, 1.0], dtype=torch.float64), 0.1
    guard, places = run([3.0, 1.0], [1.0, -2.0], 6, Watch())
    mean, expected = 0.0, []
    for before, place in zip([None, *places], places, strict=False):
        curvature = 0.0 if before is None else ((diagonal * (place - before)).norm() / (place - before).norm()).item()
        mean = 0.95 * mean + 0.05 * curvature
        expected.append(lr * max(curvature, mean) / 2)  # ||p|| / ||g|| is the rate
    assert guard.history["ratio"] == pytest.approx(expected, rel=1e-12)


def test_the_first_step_is_unprotected_and_says_so():
    guard, _ = run([100.0], [1.0], 1, Throttle())
    assert guard.last.status is Status.UNBOUNDED
    assert guard.last.scale == 1.0
    assert "unprotected" in guard.last.message


@pytest.mark.parametrize(("order", "first"), [(1, 0.15), (2, 0.15)])
def test_the_first_step_of_a_gradual_throttle_is_k_chi(order, first):
    guard, _ = run([100.0], [1.0], 1, Throttle(order=order))
    assert guard.last.scale == pytest.approx(first)
    assert guard.last.status is Status.THROTTLED


def test_the_throttle_brings_a_diverging_run_down():
    """eta lambda = 10: the first step overshoots nine times, the rest come down."""
    free, _ = run([100.0], [1.0], 8, Watch())
    kept, places = run([100.0], [1.0], 40, Throttle())
    assert free.last.step_length > 1e6
    assert abs(places[-1].item()) < 1e-6
    assert kept.history["scale"][1:3] == pytest.approx([0.15, 0.15])


def test_where_nothing_moved_the_last_curvature_stands():
    model, loss = quadratic([3.0], [1.0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = attach(model, optimizer, radius=SecantCurvature(), policy=Watch())
    for put_back in (False, True, False, False):
        before = model.weight.detach().clone()
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        if put_back:
            with torch.no_grad():
                model.weight.copy_(before)  # the next step begins where this one began
    assert guard.history["ratio"][1:] == pytest.approx([0.15, 0.15, 0.15], rel=1e-12)


def test_other_parameters_than_before_are_not_compared():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = attach(model, optimizer, radius=SecantCurvature(), policy=Watch())
    for frozen in (False, True, True):
        model[0].requires_grad_(not frozen)
        optimizer.zero_grad(set_to_none=True)
        model(torch.ones(3, 2, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
    assert ["unprotected" in message for message in guard.history["message"]] == [True, True, False]


def test_resumed_it_goes_on():
    whole, _ = run([3.0, 1.0], [1.0, -2.0], 6, Throttle())
    guard, places = run([3.0, 1.0], [1.0, -2.0], 3, Throttle())
    saved = guard.state_dict()
    model, loss = quadratic([3.0, 1.0], [1.0, -2.0])
    _, places = run([3.0, 1.0], [1.0, -2.0], 4, Throttle())
    with torch.no_grad():
        model.weight.copy_(places[3])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = attach(model, optimizer, radius=SecantCurvature(), policy=Throttle())
    guard.load_state_dict(saved)
    for _ in range(3):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert guard.history["ratio"] == whole.history["ratio"][3:]


class Cautious(torch.optim.SGD):
    """Takes no step in entries whose gradient is nan."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for q in group["params"]:
                q.sub_(0.1 * q.grad.nan_to_num(0.0))


def test_a_gradient_that_is_not_finite_is_not_compared_with():
    model, loss = quadratic([3.0, 1.0], [1.0, -2.0])
    optimizer = Cautious(model.parameters(), lr=0.1)
    guard = attach(model, optimizer, radius=SecantCurvature(), policy=Throttle())
    for index in range(5):
        optimizer.zero_grad()
        loss().backward()
        if index == 2:
            model.weight.grad[0, 0] = math.nan
        optimizer.step()
    statuses = guard.history["status"]
    assert statuses[2] == Status.UNDONE
    assert all(status in {Status.INSIDE, Status.THROTTLED} for status in statuses[3:])


def test_sparse_gradients_are_refused():
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
    attach(table, optimizer, radius=SecantCurvature(), policy=Throttle())
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(MeasurementError, match="dense gradients"):
        optimizer.step()


@pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan])
def test_the_share_is_checked(beta):
    with pytest.raises(ValueError, match="beta"):
        SecantCurvature(beta=beta)
