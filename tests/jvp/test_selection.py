"""Which way J p is measured: fallbacks are right, named, and said once; wrong derivatives are found out."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.functional import cross_entropy

from safestep import MeasurementError, SafestepWarning, SoftmaxRadius, Watch, attach
from safestep.guard.checkpoint import Saved
from safestep.jvp.selection import Route, as_state, from_state

EXACT = SoftmaxRadius(method="exact")


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


class OwnDice(nn.Module):
    """Drops entries by a generator of its own, which nobody can set back."""

    def __init__(self):
        super().__init__()
        self.dice = torch.Generator().manual_seed(0)

    def forward(self, x):
        return x * torch.bernoulli(torch.full_like(x, 0.5), generator=self.dice)


class Decaying(nn.Module):
    """Divides by a buffer that every training forward changes first."""

    def __init__(self):
        super().__init__()
        self.register_buffer("heat", torch.ones(()))

    def forward(self, x):
        if self.training:
            self.heat.mul_(0.5)
        return x / self.heat


def one_step(layer, *, policy=None, radius=None, parts=2):
    """Attach and run one batch backward, in micro-batches: more than one are never taped, but run again."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), layer)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    guard = attach(model, optimizer, radius=EXACT if radius is None else radius, policy=policy)
    x, y = torch.randn(6, 5), torch.randint(0, 4, (6,))
    for inputs, labels in zip(x.chunk(parts), y.chunk(parts), strict=True):
        cross_entropy(model(inputs), labels).backward()
    return model, optimizer, guard, start, x


def linear_ratio(model, start, x, factor=1.0):
    p = {name: q.detach() - start[name] for name, q in model.named_parameters()}
    a = (x @ p["0.weight"].T + p["0.bias"]) * factor + 4 * p.get("1.shift", torch.zeros(4))
    return ((a.amax(-1) - a.amin(-1)).max() / torch.pi).item()


@pytest.mark.parametrize(
    ("layer", "way", "precision"), [(Opaque(), "difference", 1e-5), (Float32Only(), "difference in float32", 1e-3)]
)
def test_a_layer_without_forward_derivative_is_named_and_measured_by_differences(layer, way, precision):
    model, optimizer, guard, start, x = one_step(layer, policy=Watch())
    with pytest.warns(SafestepWarning, match=rf"layer '1' \({type(layer).__name__}\).*central differences"):
        optimizer.step()
    assert guard.last.method == f"{way}/train"
    assert not guard.last.exact
    assert guard.last.ratio == pytest.approx(linear_ratio(model, start, x, factor=2.0), rel=precision)
    cross_entropy(model(x), torch.arange(len(x)) % 4).backward()
    optimizer.step()  # warnings are errors here: said once only
    assert guard.last.method == f"{way}/train"


def test_parameters_hidden_from_differentiation_are_found_out():
    model, optimizer, guard, start, x = one_step(Hidden(), policy=Watch())
    with pytest.warns(SafestepWarning, match=r"disagrees.*central differences"):
        optimizer.step()
    assert guard.last.ratio == pytest.approx(linear_ratio(model, start, x), rel=1e-5)
    assert guard.last.method == "difference/train"


@pytest.mark.parametrize("method", ["exact", "probe", "tiered"])
def test_a_forward_that_cannot_be_repeated_is_refused_and_the_step_undone(method):
    Fickle.calls = 0
    model, optimizer, _, start, _ = one_step(Fickle(), radius=SoftmaxRadius(method=method, mode="eval"), parts=1)
    with pytest.raises(MeasurementError, match=r"layer '1' \(Fickle\).*no second forward.*Watch\(\)"):
        optimizer.step()
    assert all(torch.equal(p, start[name]) for name, p in model.named_parameters())


class Clock(nn.Module):
    """Draws from where nothing can look: another number at every call."""

    def forward(self, z):
        return z * (1 + os.urandom(1)[0] / 64)


@pytest.mark.parametrize("method", ["exact", "probe", "tiered"])
def test_a_forward_that_draws_its_own_numbers_is_never_called_exact(method):
    _, optimizer, guard, _, _ = one_step(Clock(), policy=Watch(), radius=SoftmaxRadius(method=method))
    with pytest.warns(SafestepWarning, match="no replay repeats the training forward"):
        optimizer.step()
    assert not guard.last.exact
    assert guard.last.ratio > 0


@pytest.mark.parametrize("method", ["exact", "probe", "tiered"])
def test_a_generator_of_its_own_is_set_to_where_training_found_it(method):
    _, optimizer, guard, _, _ = one_step(OwnDice(), policy=Watch(), radius=SoftmaxRadius(method=method))
    optimizer.step()  # warnings are errors here
    assert guard.last.exact is (method == "exact")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dropout_draws_the_same_mask_whatever_the_memory_layout(layout):
    """Dropout draws along the memory, and a derivative that lays its activations out otherwise has another mask."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(36, 4)).to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    guard = attach(model, optimizer, radius=EXACT, policy=Watch())
    x = torch.randn(3, 1, 5, 5).to(memory_format=layout)
    cross_entropy(model(x), torch.tensor([0, 1, 2])).backward()
    optimizer.step()  # warnings are errors here
    assert guard.last.exact


class Rerolling(nn.Module):
    """Draws other masks when nobody asks for gradients of its input, as fused kernels may."""

    def forward(self, x):
        if not x.requires_grad and forward_ad.unpack_dual(x).tangent is not None:
            torch.rand(1)
        return nn.functional.dropout(x, 0.5)


def test_a_dropout_mask_that_only_forward_mode_draws_otherwise_is_found_out():
    _, optimizer, guard, _, _ = one_step(Rerolling(), policy=Watch())
    with pytest.warns(SafestepWarning, match="draws other random numbers"):
        optimizer.step()
    assert guard.last.method == "difference/train"


@pytest.mark.parametrize("radius", [EXACT, SoftmaxRadius(method="probe")], ids=["exact", "probe"])
def test_buffers_are_those_the_forward_started_from(radius):
    precision = 1e-5 if radius is EXACT else 1e-3
    model, optimizer, guard, start, x = one_step(Decaying(), policy=Watch(), radius=radius, parts=1)
    optimizer.step()
    assert guard.last.ratio == pytest.approx(linear_ratio(model, start, x, factor=2.0), rel=precision)
    assert guard.last.exact is (radius is EXACT)
    assert model[1].heat == 0.5
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    cross_entropy(model(x), torch.arange(len(x)) % 4).backward()
    optimizer.step()
    assert guard.last.ratio == pytest.approx(linear_ratio(model, start, x, factor=4.0), rel=precision)


@pytest.mark.parametrize("method", ["exact", "probe", "tiered"])
@pytest.mark.parametrize("parts", [1, 2])
def test_parameters_changed_between_forward_and_step_are_noticed(parts, method):
    radius = SoftmaxRadius(method=method)
    model, optimizer, guard, _, _ = one_step(nn.Identity(), policy=Watch(), radius=radius, parts=parts)
    with torch.no_grad():
        model[0].weight += 1.0
    with pytest.warns(SafestepWarning, match="did the parameters change"):
        optimizer.step()
    assert not guard.last.exact


@pytest.mark.parametrize("method", ["exact", "probe"])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_change_between_forward_and_step_is_noticed_whenever_it_comes(parts, method):
    """Whether the training pass is on a tape, run again, or probed; and not at every power of two alone."""
    radius = SoftmaxRadius(method=method)
    model, optimizer, guard, _, x = one_step(nn.Identity(), policy=Watch(), radius=radius, parts=parts)
    for _ in range(6):
        optimizer.step()
        optimizer.zero_grad()
        for piece in x.chunk(parts):
            cross_entropy(model(piece), torch.arange(len(piece)) % 4).backward()
    assert all(report.exact is (method == "exact") for report in guard.history)
    with torch.no_grad():
        model[0].weight += 1.0
    with pytest.warns(SafestepWarning, match="did the parameters change"):
        optimizer.step()
    assert not guard.last.exact


def test_one_micro_batch_of_other_parameters_makes_the_reading_inexact():
    model, optimizer, guard, _, x = one_step(nn.Identity(), policy=Watch())  # the first forward ...
    with torch.no_grad():
        model[0].weight += 1.0  # ... whose parameters are not those of the step
    cross_entropy(model(x), torch.zeros(6, dtype=torch.long)).backward()
    with pytest.warns(SafestepWarning, match="did the parameters change"):
        optimizer.step()
    assert not guard.last.exact


def test_lbfgs_is_measured_where_its_step_started():
    torch.manual_seed(0)
    model = nn.Linear(5, 4)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    guard = attach(model, optimizer, radius=EXACT)
    x, y = torch.randn(6, 5), torch.randint(0, 4, (6,))
    start = model.weight.detach().clone(), model.bias.detach().clone()

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    a = x @ (model.weight - start[0]).T + (model.bias - start[1])
    assert guard.last.ratio == pytest.approx(((a.amax(-1) - a.amin(-1)).max() / torch.pi).item(), rel=1e-5)
    assert guard.last.exact
    assert guard.last.status == "watched"


def test_a_confirmed_route_is_remembered_in_the_state():
    _, optimizer, guard, _, _ = one_step(nn.Identity(), policy=Watch(), parts=1)
    optimizer.step()
    saved = Saved.of(guard.state_dict(), guard.radius, guard.policy)
    assert saved.radius["route"] == {"way": "tangents", "faithful": True, "uses": 1}
    assert from_state(as_state(Route("difference", False, 5))) == Route("difference", False, 5)
    assert from_state(None) == Route()
