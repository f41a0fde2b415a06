"""CDAT: its quotient on a quadratic, what σ means, its averages, and models whose fast kernels have one derivative."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, Adam

from safestep.lab.rivals.edge import OnEdge
from safestep.lab.tasks import digits_cnn, digits_transformer, text_gpt, text_lstm


@given(seed=st.integers(0, 99), sigma=st.floats(0.5, 2.0))
def test_on_a_quadratic_the_rate_is_that_of_the_paper(seed, sigma):
    generator = torch.Generator().manual_seed(seed)
    root, start = (torch.randn(4, n, dtype=torch.float64, generator=generator) for n in (4, 1))
    hessian = root @ root.T
    weight = nn.Parameter(start.clone())
    stepper = OnEdge(Adam([weight], lr=1.0), sigma)
    stepper.step(lambda: (weight.T @ hessian @ weight).sum() / 2)
    gradient = hessian @ start
    step = -gradient / (gradient.abs() + 1e-8)  # Adam's first
    rate = sigma * float(-(gradient * step).sum()) / (float(step.T @ hessian @ step) + 1e-8)
    assert stepper.rate == pytest.approx(rate, rel=1e-6)
    torch.testing.assert_close(weight.detach(), start + rate * step, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("sigma", "falls"), [(1.0, True), (2.0, False)])
def test_one_goes_to_the_bottom_and_two_to_the_other_side(sigma, falls):
    weight = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    stepper = OnEdge(SGD([weight], lr=1.0), sigma)
    before = stepper.step(lambda: torch.sum(5 * weight**2))
    after = float(5 * weight.detach() ** 2)
    assert after == pytest.approx(0.0 if falls else before, abs=1e-6)


def test_numerator_and_denominator_are_averaged_apart():
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    stepper = OnEdge(SGD([weight], lr=1.0), sigma=1.0, kept=0.5)
    stepper.step(lambda: (weight**2).sum() / 2)  # g = 1, u = -1, H = 1: 0.5 / 0.5
    assert weight.item() == pytest.approx(0.0, abs=1e-7)
    stepper.step(lambda: torch.sum(2 * weight**2 + 3 * weight))  # g = 3, H = 4: (0.25 + 4.5) / (0.25 + 18)
    assert stepper.rate == pytest.approx(4.75 / 18.25, rel=1e-6)


def test_uphill_it_stands():
    # momentum carries it past the bottom of a parabola, where the gradient turns
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    stepper = OnEdge(SGD([weight], lr=1.0, momentum=0.9), sigma=2.0, kept=0.0)
    stepper.step(lambda: torch.sum(weight**2))
    weight.data.fill_(-0.1)
    assert stepper.step(lambda: torch.sum(weight**2)) > 0
    assert stepper.rate == 0.0
    assert weight.item() == -0.1


def test_down_a_hill_that_bends_away_it_goes_as_far():
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    stepper = OnEdge(SGD([weight], lr=1.0))
    stepper.step(lambda: torch.sum(10 - weight**2))  # g = -2, u = 2, H = -2
    assert stepper.rate == pytest.approx(2 * 4 / 8)


def test_a_loss_without_curvature_is_divided_by_epsilon():
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    stepper = OnEdge(SGD([weight], lr=1.0), kept=0.0)
    stepper.step(lambda: torch.sum(1e-6 * weight))
    assert stepper.rate == pytest.approx(2 * 1e-12 / 1e-8)


@pytest.mark.parametrize("make", [digits_cnn, digits_transformer, text_gpt, text_lstm])
def test_its_second_backward_is_there_for_every_model_of_the_lab(make):
    task = make(0)
    inputs, labels = next(task.batches(4, torch.Generator().manual_seed(0)))
    stepper = OnEdge(Adam(task.model.parameters(), lr=1.0))
    stepper.step(lambda: task.loss(inputs, labels))
    assert 0 < stepper.rate < 1
