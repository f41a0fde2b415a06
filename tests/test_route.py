"""Which way J p is measured: fallbacks are right, named, and said once; lost tangents are found out."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from safestep import MeasurementError, SafestepWarning, Watch, attach
from safestep.route import Route, as_state, from_state


class Doubled(torch.autograd.Function):
    """An operation that torch cannot differentiate in forward mode."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class Opaque(nn.Module):
    def forward(self, x):
        return Doubled.apply(x)


class Float32Only(nn.Module):
    def forward(self, x):
        if x.dtype is not torch.float32:
            raise RuntimeError("expected float32 activations")
        return Doubled.apply(x)


class Hidden(nn.Module):
    """A layer whose parameters no derivative sees, though the logits depend on them."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return x + self.shift + 3 * self.shift.detach()


class Fickle(nn.Module):
    """Runs when it is trained, and not again."""

    calls = 0

    def forward(self, x):
        Fickle.calls += 1
        if Fickle.calls > 1:
            raise RuntimeError("no second forward")
        return x


def one_step(layer, *, policy=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), layer)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    guard = attach(model, optimizer, policy=policy)
    x, y = torch.randn(6, 5), torch.randint(0, 4, (6,))
    cross_entropy(model(x), y).backward()
    return model, optimizer, guard, start, x


def linear_ratio(model, start, x, factor=1.0):
    p = {name: q.detach() - start[name] for name, q in model.named_parameters()}
    a = (x @ p["0.weight"].T + p["0.bias"]) * factor + 4 * p.get("1.shift", torch.zeros(4))
    return ((a.amax(-1) - a.amin(-1)).max() / torch.pi).item()


@pytest.mark.parametrize(("layer", "precision"), [(Opaque(), 1e-5), (Float32Only(), 1e-3)])
def test_a_layer_without_forward_derivative_is_named_and_measured_by_differences(layer, precision):
    model, optimizer, guard, start, x = one_step(layer, policy=Watch())
    with pytest.warns(SafestepWarning, match=rf"layer '1' \({type(layer).__name__}\).*central differences"):
        optimizer.step()
    assert guard.last.method == "difference/train"
    assert not guard.last.exact
    assert guard.last.ratio == pytest.approx(linear_ratio(model, start, x, factor=2.0), rel=precision)
    model(x).logsumexp(-1).mean().backward()
    optimizer.step()  # warnings are errors here: said once only


def test_parameters_hidden_from_differentiation_are_found_out():
    model, optimizer, guard, start, x = one_step(Hidden(), policy=Watch())
    with pytest.warns(SafestepWarning, match="disagree.*larger"):
        optimizer.step()
    assert guard.last.ratio == pytest.approx(linear_ratio(model, start, x), rel=1e-5)
    assert guard.last.method == "difference/train"


def test_a_forward_that_cannot_be_repeated_is_refused_and_the_step_undone():
    Fickle.calls = 0
    model, optimizer, _, start, _ = one_step(Fickle())
    with pytest.raises(MeasurementError, match=r"layer '1' \(Fickle\).*no second forward.*Watch\(\)"):
        optimizer.step()
    assert all(torch.equal(p, start[name]) for name, p in model.named_parameters())


def test_a_confirmed_route_is_remembered_in_the_state():
    _, optimizer, guard, _, _ = one_step(nn.Identity(), policy=Watch())
    optimizer.step()
    assert guard.state_dict()["radius"]["state"] == {"route": "forward-mode", "checked": True}
    assert from_state(as_state(Route("difference", checked=True))) == Route("difference", checked=True)
    assert from_state(None) == Route()
