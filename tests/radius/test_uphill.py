"""Steps that go uphill on their own batch are held, whatever the policy."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from radius.dense_curvature import inputs, labels, network, parameters
from safestep import (
    Cap,
    CurvatureRadius,
    Pin,
    SafestepWarning,
    Status,
    Throttle,
    Watch,
    attach,
)


def uphill(policy):
    """A step against the gradient of the present batch: momentum of an earlier, opposite one."""
    model, x, y = network(), inputs(), labels("classes")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    guard = attach(model, optimizer, radius=CurvatureRadius(), policy=policy)
    for factor in (-1.0, 1e-3):
        optimizer.zero_grad()
        (factor * F.cross_entropy(model(x), y)).backward()
        before = parameters(model)
        optimizer.step()
    return guard, before, parameters(model), optimizer


QUIET = pytest.mark.filterwarnings("ignore:the gradient at the logits is")


@QUIET
@pytest.mark.parametrize("policy", [Cap(1e6), Pin(1.0), Throttle(), Throttle(order=1), Throttle(order=2)], ids=str)
def test_a_step_uphill_is_held_and_the_optimizer_moves_on(policy):
    guard, before, after, optimizer = uphill(policy)
    assert guard.last.status is Status.HELD
    assert guard.last.scale == guard.last.applied_ratio == 0.0
    assert all(torch.equal(before[name], after[name]) for name in before)
    buffer = next(iter(optimizer.state.values()))["momentum_buffer"]
    assert bool(buffer.any())


@QUIET
@pytest.mark.parametrize("policy", [Watch(), Watch(Cap(1.0)), Cap(math.inf)], ids=str)
def test_a_step_uphill_stands_where_nothing_is_too_long(policy):
    guard, before, after, _ = uphill(policy)
    assert guard.last.ratio == math.inf
    assert guard.last.scale == 1.0
    assert any(not torch.equal(before[name], after[name]) for name in before)


@QUIET
def test_what_a_throttle_would_do_about_a_step_uphill_is_recorded():
    assert uphill(Watch(Throttle()))[0].last.would_scale == 0.0


def test_a_step_uphill_is_held_where_the_softmax_is_too_sure_to_bend():
    """A sample that is wrong by 800 nats: its P is a one, and Var_P(a) a plain 0."""
    model, x = nn.Linear(1, 2, bias=False).double(), torch.ones(1, 1, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[400.0], [-400.0]]))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, maximize=True)
    guard = attach(model, optimizer, policy=Throttle())
    F.cross_entropy(model(x), torch.tensor([1])).backward()
    optimizer.step()
    assert guard.last.status is Status.HELD


def test_a_run_that_is_held_for_ever_is_said():
    model, x, y = network(), inputs(), labels("classes")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, maximize=True)
    guard = attach(model, optimizer, policy=Throttle())

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    steps(19)
    with pytest.warns(SafestepWarning, match="20 steps in a row were held"):
        steps(1)
    steps(30)  # said once
    assert set(guard.history["status"]) == {Status.HELD}


def test_a_step_that_moves_no_logit_is_unbounded():
    model, x = nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 4)).double(), inputs()
    nn.init.zeros_(model[2].weight)
    nn.init.constant_(model[0].bias, -100.0)  # no unit is active, and the head does not move
    model[2].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    guard = attach(model, optimizer, policy=Throttle())
    F.cross_entropy(model(x), labels("classes")).backward()
    optimizer.step()
    assert guard.last.status is Status.UNBOUNDED
    assert guard.last.scale == 1.0


def test_the_gradient_at_the_logits_lives_no_longer_than_the_step():
    import gc
    import weakref

    model, x, y = network(), inputs(), labels("classes")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attach(model, optimizer, policy=Throttle())
    seen = []
    z = model(x)
    z.register_hook(lambda gradient: seen.append(weakref.ref(gradient.untyped_storage())))
    F.cross_entropy(z, y).backward()
    del z
    optimizer.step()
    gc.collect()
    assert len(seen) == 1
    assert seen[0]() is None
