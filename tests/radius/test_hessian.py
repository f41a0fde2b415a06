"""The Hessian radius against dense Hessians, and that its closure leaves no trace."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from safestep import HessianRadius, MeasurementError, SoftmaxRadius, Status, Throttle, Tightest, Watch, attach
from zoo import ALL, ZOO, Training
from zoo.asserts import assert_untouched


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 3, dtype=torch.float64, generator=generator), torch.randint(0, 2, (6,), generator=generator)


def test_r_is_that_of_the_dense_hessian_penalties_included():
    model, (x, y) = network(), data()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    sizes = [p.numel() for p in start.values()]

    def loss_at(theta):
        values = {n: v.view_as(start[n]) for n, v in zip(start, theta.split(sizes), strict=True)}
        penalty = sum(v.square().sum() for v in values.values())
        return F.cross_entropy(torch.func.functional_call(model, values, (x,)), y) + 0.1 * penalty

    def loss():
        return F.cross_entropy(model(x), y) + 0.1 * sum(p.square().sum() for p in model.parameters())

    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    guard = attach(model, optimizer, radius=HessianRadius(loss), policy=Watch())
    loss().backward()
    optimizer.step()
    origin = torch.cat([p.flatten() for p in start.values()])
    p = torch.cat([q.detach().flatten() for q in model.parameters()]) - origin
    gradient, hessian = torch.func.grad(loss_at)(origin), torch.func.hessian(loss_at)(origin)
    assert guard.last.ratio == pytest.approx((p @ hessian @ p / (-2 * gradient @ p)).item(), rel=1e-10)


@pytest.mark.parametrize("case", ["mlp", "cnn", "attention", "dot-product", "lstm", "encoder-layer"])
def test_training_is_untouched_and_the_closure_sees_the_very_loss(case):
    """BatchNorm's statistics, dropout's masks, gradients, generators; and the closure repeats the training forward."""
    plain = Training(ZOO[case], ALL["SGD"]).steps(3).everything()
    training, trained, replayed = Training(ZOO[case], ALL["SGD"]), [], []

    def closure():
        batch = training.case.batch(training.index, training.dtype)
        loss = training.case.loss(training.model(*batch.args, **batch.kwargs), batch.labels)
        replayed.append(loss.item())
        return loss

    guard = training.attach(radius=HessianRadius(closure), policy=Watch())
    for _ in range(3):
        trained.append(training.backward().item())
        training.optimizers[0].step()
        training.index += 1
    guarded = training.everything()
    del plain["writes"], guarded["writes"]  # the parameters went to the start and back
    assert_untouched(guarded, plain)
    assert replayed == pytest.approx(trained, rel=1e-6)
    assert all(math.isfinite(report.ratio) for report in guard.history)


def test_a_frozen_parameter_that_still_moves_is_left_where_it_went():
    """A gradient from before it was frozen: the optimizer moves it once more, and so must a guarded run."""
    places = []
    for guarded in (False, True):
        model, (x, y) = network(), data()
        loss = lambda: F.cross_entropy(model(x), y)  # noqa: B023, E731
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        if guarded:
            attach(model, optimizer, radius=HessianRadius(loss), policy=Watch())
        loss().backward()
        model[0].requires_grad_(False)
        optimizer.step()
        places.append(model[0].weight.detach().clone())
    assert torch.equal(*places)


class Multiply(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1 + 2j], dtype=torch.complex128))

    def forward(self, x):
        return torch.view_as_real(x * self.weight)


def test_complex_parameters_are_two_real_ones():
    model, x = Multiply(), torch.full((1, 1), 2.0, dtype=torch.complex128)
    loss = lambda: model(x).square().sum() / 2  # noqa: E731
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = attach(model, optimizer, radius=HessianRadius(loss), policy=Watch())
    loss().backward()
    optimizer.step()
    assert guard.last.ratio == pytest.approx(0.1 * 4 / 2, rel=1e-12)


def test_its_forwards_are_no_forwards_of_the_step():
    plain, training = Training(ZOO["mlp"], ALL["SGD"]), Training(ZOO["mlp"], ALL["SGD"])

    def closure():
        batch = training.case.batch(training.index, training.dtype)
        return training.case.loss(training.model(*batch.args), batch.labels)

    softmax = SoftmaxRadius(method="exact")
    one = plain.attach(radius=softmax, policy=Watch())
    other = training.attach(radius=Tightest({softmax: 1e-6, HessianRadius(closure): 1e6}), policy=Watch())
    plain.steps(3)
    for _ in range(3):
        training.backward()
        training.optimizers[0].step()
        training.index += 1
    assert other.history["ratio"] == pytest.approx([1e6 * r for r in one.history["ratio"]], rel=1e-12)


def test_where_the_loss_does_not_bend_upwards_nothing_is_limited():
    model = nn.Linear(1, 1, bias=False).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.ones(1, 1, dtype=torch.float64)
    loss = lambda: -model(x).square().sum()  # noqa: E731
    guard = attach(model, optimizer, radius=HessianRadius(loss), policy=Throttle())
    loss().backward()
    optimizer.step()
    assert guard.last.status is Status.UNBOUNDED
    assert guard.last.message == "the loss does not bend upwards"


def test_a_linear_loss_is_unbounded():
    model = nn.Linear(1, 1, bias=False).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = lambda: model(torch.ones(1, 1, dtype=torch.float64)).sum()  # noqa: E731
    guard = attach(model, optimizer, radius=HessianRadius(loss), policy=Throttle())
    loss().backward()
    optimizer.step()
    assert guard.last.status is Status.UNBOUNDED


def test_a_step_uphill_is_held_however_the_loss_bends():
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, maximize=True)
    loss = lambda: (0.8 * model(torch.ones(1, 1, dtype=torch.float64))).cos().sum()  # noqa: E731  # bends downwards
    guard = attach(model, optimizer, radius=HessianRadius(loss), policy=Throttle())
    loss().backward()
    optimizer.step()
    assert guard.last.status is Status.HELD
    assert model.weight.item() == 1.0


@pytest.mark.parametrize(
    ("closure", "text"),
    [
        (lambda model, x: model(x), "shape"),
        (lambda model, x: model(x).sum().item(), "float"),
        (lambda model, x: model(x).sum().detach(), "a scalar with a graph"),
    ],
)
def test_closures_that_return_no_loss_are_refused_and_the_step_undone(closure, text):
    model, (x, y) = network(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attach(model, optimizer, radius=HessianRadius(lambda: closure(model, x)), policy=Throttle())
    before = [p.detach().clone() for p in model.parameters()]
    F.cross_entropy(model(x), y).backward()
    with pytest.raises(MeasurementError, match=text):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_something_else_than_a_closure_is_refused():
    with pytest.raises(TypeError, match="function that returns the loss"):
        HessianRadius("cross_entropy")


def test_of_several_forwards_it_is_not_called_exact():
    model, (x, y) = network(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = attach(model, optimizer, radius=HessianRadius(lambda: F.cross_entropy(model(x), y)), policy=Watch())
    for parts in (1, 2):
        optimizer.zero_grad()
        for inputs, labels in zip(x.chunk(parts), y.chunk(parts), strict=True):
            (F.cross_entropy(model(inputs), labels) / parts).backward()
        optimizer.step()
    assert guard.history["exact"] == [True, False]
