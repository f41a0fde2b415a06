"""A factor between logits and loss (a temperature): found in the gradient, or r is not called exact."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from heads.one_step import EXACT, METHODS, Net, batch, step
from safestep import CurvatureRadius, HessianRadius, SafestepWarning, Watch, attach
from safestep.recording.proposal import Proposal
from zoo.truth import Truth


@METHODS
@pytest.mark.parametrize("factor", [64.0, 1 / 0.07, 0.25])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_factor_after_the_model_is_found_and_used(factor, classes, radius):
    torch.manual_seed(1)
    model = Net(lambda h, a: a / 10, classes)
    loss = lambda out, y: F.cross_entropy(factor * out, y % classes)  # noqa: E731
    guard, truth = step(model, loss, read=lambda out: [factor * out], lr=0.05, radius=radius)
    assert guard.last.ratio == pytest.approx(truth, rel=1e-3 if radius is EXACT else 0.03)
    assert f"times {factor:.4g}" in repr(guard)


def test_curvature_knows_the_factor_too():
    torch.manual_seed(1)
    model, (x, y) = nn.Linear(5, 4).double(), batch()
    loss = lambda: F.cross_entropy(8.0 * model(x.double()), y)  # noqa: E731
    found, radius = [], HessianRadius(loss)

    def second_opinion(one, forwards, report):
        found.append(radius.measure(Proposal(one, forwards), None)[0].ratio)
        return {}

    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = attach(model, optimizer, radius=CurvatureRadius(), policy=Watch(), diagnostics=[second_opinion])
    loss().backward()
    optimizer.step()
    assert guard.last.ratio == pytest.approx(found[0], rel=1e-5)


def test_a_temperature_that_is_learnt_is_followed():
    torch.manual_seed(1)
    model, (x, y) = Net(lambda h, a: a / 10, 6), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    guard = attach(model, optimizer, radius=EXACT, policy=Watch())
    for factor in (2.0, 4.0, 8.0, 16.0, 32.0, 64.0):
        optimizer.zero_grad()
        truth = Truth(model, lambda out, factor=factor: [factor * out])
        F.cross_entropy(factor * model(x), y).backward()
        optimizer.step()
        assert guard.last.ratio == pytest.approx(truth.ratio(model, x), rel=1e-3)


def test_where_the_factor_cannot_be_told_logits_is_asked_for_once():
    torch.manual_seed(1)
    model = Net(lambda h, a: a, 6)
    soft = torch.rand(7, 6).softmax(-1)
    loss = lambda out, y: F.cross_entropy(out, soft)  # noqa: E731
    with pytest.warns(SafestepWarning, match="attach\\(..., logits=") as said:
        step(model, loss, read=lambda out: [out], lr=0.1, steps=5)
    assert len(said) == 1
    step(Net(lambda h, a: a, 6), loss, read=lambda out: [out], lr=0.1, logits=lambda out: out)  # named: nothing to ask


def test_a_factor_that_cannot_be_told_is_not_called_exact():
    soft = torch.rand(7, 4).softmax(-1)
    torch.manual_seed(1)
    with pytest.warns(SafestepWarning, match="factor"):
        guard, _ = step(Net(lambda h, a: a, 4), lambda z, y: F.cross_entropy(z / 0.3, soft), read=lambda out: [out])
    assert guard.last.exact is False


def test_a_penalty_does_not_take_back_a_factor_that_was_found():
    """Its second derivatives bring a gradient to the logits that is no softmax's."""
    torch.manual_seed(1)
    model, (x, y) = Net(lambda h, a: a, 4), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = attach(model, optimizer, radius=EXACT, policy=Watch())
    for index in range(6):
        optimizer.zero_grad()
        truth = Truth(model, lambda out: [out / 0.1])
        z = model(x)
        loss = F.cross_entropy(z / 0.1, y)
        if index:
            loss = loss + 1e-3 * (z - z.mean(-1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        assert guard.last.ratio == pytest.approx(
            truth.ratio(model, x), rel=0.01
        )  # the factor is fitted, and forgotten it would be 10 times


def test_probabilities_beside_a_loss_are_not_called_exact():
    """Nothing tells that they are no logits, once backward never reaches them."""

    class Told(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(5, 4)

        def forward(self, x, gold):
            z = self.body(x)
            return F.cross_entropy(z, gold), z.softmax(-1)

    torch.manual_seed(1)
    model, (x, y) = Told(), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = attach(model, optimizer, radius=EXACT, policy=Watch())
    model(x, y)[0].backward()
    optimizer.step()
    assert guard.last.exact is False
