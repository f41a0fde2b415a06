"""The limit where none is named goes by the optimizer: longer steps under SGD, and the softmax radius on the way up."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, AdamW, RMSprop

import safestep
from safestep import Averaged, Cap, CurvatureRadius, SoftmaxRadius, Watch, attach, default_limit


class OwnSGD(SGD):
    """As some library has it, whose groups know of no momentum."""

    def __init__(self, params, lr):
        super().__init__(params, lr=lr)
        for group in self.param_groups:
            del group["momentum"]


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))


def parts(net):
    return [list(layer.parameters()) for layer in net]


def each(net, *kinds):
    return [kind(part, lr=0.1) for kind, part in zip(kinds, parts(net), strict=True)]


def groups(net, *momenta):
    return [{"params": part, "momentum": momentum} for part, momentum in zip(parts(net), momenta, strict=True)]


WAYS = {
    "gradient": (lambda net: SGD(net.parameters(), lr=0.1), {"curvature": 0.9, "spread": 1.5}),
    "weight decay": (lambda net: SGD(net.parameters(), lr=0.1, weight_decay=0.1), {"curvature": 0.9, "spread": 1.5}),
    "of a subclass": (lambda net: OwnSGD(net.parameters(), lr=0.1), {"curvature": 0.9, "spread": 1.5}),
    "two of them": (lambda net: each(net, SGD, SGD), {"curvature": 0.9, "spread": 1.5}),
    "momentum": (lambda net: SGD(net.parameters(), lr=0.1, momentum=0.9), {"curvature": 0.9}),
    "nesterov": (lambda net: SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True), {"curvature": 0.9}),
    "momentum of one group": (lambda net: SGD(groups(net, 0.0, 0.9), lr=0.1), {"curvature": 0.9}),
    "Adam": (lambda net: Adam(net.parameters()), {}),
    "RMSprop with momentum": (lambda net: RMSprop(net.parameters(), momentum=0.9), {}),
    "SGD and AdamW": (lambda net: each(net, SGD, AdamW), {}),
    "averages": (lambda net: Averaged(SGD(net.parameters(), lr=0.1)), {"follow_schedule": False}),
    "averages of two": (lambda net: Averaged(*each(net, SGD, SGD)), {"follow_schedule": False}),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_targets_go_by_the_optimizer(way):
    net = model()
    make, targets = WAYS[way]
    assert attach(net, make(net)).radius == default_limit(**targets)


def test_what_has_no_default_limit_has_the_softmax_radius():
    net = model()
    assert attach(net, SGD(net.parameters(), lr=0.1, maximize=True)).radius == SoftmaxRadius()
    net = model()
    assert attach(net, SGD(net.parameters(), lr=0.1), forward=lambda net, x: net(x)).radius == SoftmaxRadius()


def test_a_radius_that_is_named_is_taken_as_it_is():
    net = model()
    assert attach(net, SGD(net.parameters(), lr=0.1), radius=default_limit()).radius == default_limit()


def one_step(momentum, **options):
    """Take a step that is far too long from near the best weights, where the logits have not far to go."""
    net = model()
    x, y = torch.randn(64, 6), torch.randint(4, (64,))
    for lr in [1.0] * 100 + [1e4]:
        optimizer = SGD(net.parameters(), lr=lr, momentum=momentum)
        guard = attach(net, optimizer, **options) if lr > 1.0 else None
        cross_entropy(net(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return guard.last


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_capped_step_ends_that_far_along_the_quadratic_model(momentum):
    """By the curvature radius itself; at the first step the share of the slope that counts is one half."""
    of_model = one_step(momentum, radius=CurvatureRadius(), policy=Watch()).ratio / 0.5**0.5
    record = one_step(momentum, policy=Cap(1.0))
    assert record.status is safestep.Status.CAPPED
    assert record.method.startswith("CurvatureRadius")
    assert record.scale * of_model == pytest.approx(0.9, rel=1e-4)


@pytest.mark.parametrize(
    "limit", [default_limit(), default_limit(curvature=1.35), default_limit(sample=64, curvature=0.9, spread=0.7)]
)
def test_it_prints_as_it_is_made(limit):
    assert eval(str(limit), {"default_limit": default_limit}) == limit


@pytest.mark.parametrize("part", ["curvature", "spread"])
@pytest.mark.parametrize("target", [0.0, -1.0, float("nan")])
def test_what_is_no_target_is_refused(part, target):
    with pytest.raises(ValueError, match="expected a positive number"):
        default_limit(**{part: target})


def on_a_whole_batch(momentum, radius=None):
    """Return the losses of descent at a rate that is ten thousand times too large, and the least one there is."""
    torch.manual_seed(0)
    net, x = nn.Linear(6, 4), torch.randn(64, 6)
    y = torch.randint(4, (64,))
    optimizer = SGD(net.parameters(), lr=1e4, momentum=momentum)
    attach(net, optimizer, radius=radius)
    losses = []
    for _ in range(60):
        loss = cross_entropy(net(x), y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    best = nn.Linear(6, 4)
    search = torch.optim.LBFGS(best.parameters(), max_iter=500, line_search_fn="strong_wolfe")
    search.step(lambda: (search.zero_grad(), (loss := cross_entropy(best(x), y)).backward(), loss)[-1])
    return losses, cross_entropy(best(x), y).item()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_descent_on_a_whole_batch_settles_at_any_rate(momentum):
    """The longer steps along gradients stay stable where there is no noise, and the next batch is the same."""
    losses, least = on_a_whole_batch(momentum)
    assert max(losses[40:]) - least < 0.1 * (losses[0] - least)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_beyond_the_edge_of_stability_it_does_not_settle(momentum):
    """Which is why the target is below 1."""
    losses, least = on_a_whole_batch(momentum, default_limit(curvature=1.35, spread=1.5))
    assert min(losses[40:]) - least > 0.1 * (losses[0] - least)
