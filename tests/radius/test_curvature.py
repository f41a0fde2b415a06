"""The curvature radius against dense Jacobians and Hessians in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from radius.dense_curvature import LOSS, LOSSES, dense_ratio, half_mse, inputs, labels, network, stepped
from safestep import (
    CurvatureRadius,
    HessianRadius,
    Watch,
    attach,
)
from zoo import examples


@pytest.mark.filterwarnings("ignore:whether the loss multiplies")  # soft labels do not tell
@LOSS
def test_r_is_the_quadratic_model_of_the_loss_along_the_step(name):
    radius, loss, kind = LOSSES[name]
    model, x, y = network(), inputs(), labels(kind)
    report, start, p = stepped(model, radius, lambda _: loss(model(x), y).backward())
    assert report.ratio == pytest.approx(dense_ratio(model, start, p, x, lambda z: loss(z, y)), rel=1e-10)
    assert report.exact is (name != "soft-labels")  # a factor that they may have had is not known


@pytest.mark.filterwarnings("ignore:whether the loss multiplies")  # soft labels do not tell
@LOSS
def test_for_a_linear_model_it_is_the_hessian(name):
    radius, loss, kind = LOSSES[name]
    x, y = inputs(), labels(kind)
    ratios = []
    for one in (radius, None):
        torch.manual_seed(0)
        model = nn.Linear(5, 4).double()
        one = one or HessianRadius(lambda: loss(model(x), y))  # noqa: B023, PLW2901
        ratios.append(stepped(model, one, lambda _: loss(model(x), y).backward())[0].ratio)  # noqa: B023
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-10)


@given(eigenvalue=st.floats(0.01, 1e3), margin=st.floats(0.01, 100))
@examples(30)
def test_plain_sgd_along_an_eigenvector_has_half_its_margin(eigenvalue, margin):
    """Contract 5: on a quadratic r = eta lambda / 2, 1 at eta lambda = 2."""
    model = nn.Linear(1, 1, bias=False).double()
    x = torch.full((1, 1), math.sqrt(eigenvalue), dtype=torch.float64)
    act = lambda _: half_mse(model(x), torch.ones(1, 1)).backward()  # noqa: E731
    report, *_ = stepped(model, CurvatureRadius("half_mse"), act, lr=margin / eigenvalue)
    # p is a difference of parameters, whose rounding is that of the larger of them
    assert report.ratio == pytest.approx(margin / 2, rel=1e-9)


def test_at_twice_the_inverse_curvature_r_is_one():
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    x = torch.full((1, 1), 2.0, dtype=torch.float64)
    act = lambda _: half_mse(model(x), torch.ones(1, 1)).backward()  # noqa: E731
    assert stepped(model, CurvatureRadius("half_mse"), act, lr=0.5)[0].ratio == 1.0


class Along(torch.optim.Optimizer):
    """Adds c times the negative gradient, for any c."""

    def __init__(self, parameters, c):
        super().__init__(parameters, {})
        self.c = c

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for q in group["params"]:
                q.add_(q.grad, alpha=-self.c)


@given(power=st.floats(-6, 6))
@examples(20)
def test_r_grows_with_the_length_of_the_step(power):
    """Contract 4: r(c p) = c r(p) for c > 0; in the other direction the step goes uphill."""
    ratios = []
    for c in (1.0, 10.0**power, -1.0):
        model, x, y = network(), inputs(), labels("classes")
        optimizer = Along(model.parameters(), c)
        guard = attach(model, optimizer, radius=CurvatureRadius(), policy=Watch())
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        ratios.append(guard.last.ratio)
    # a displacement is read off parameters of size 1 with 16 digits
    assert ratios[1] == pytest.approx(10.0**power * ratios[0], rel=1e-8)
    assert ratios[2] == math.inf
