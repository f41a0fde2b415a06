"""Contract 5: in its limits a guard is something known: the plain optimizer, the two-class formula."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from safestep import Cap, CurvatureRadius, Status, Watch
from safestep.formulas.softmax_ratio import radius_bound, spread, step_ratio, two_class_radius
from zoo import ALL, RADII, ZOO, Batch, Case, Training, recipes_for
from zoo.asserts import assert_untouched


@RADII
@pytest.mark.parametrize("recipe", recipes_for(ZOO["mlp"]), ids=str)
def test_an_infinite_cap_is_the_plain_optimizer_far_outside_the_radius(recipe, method):
    plain = Training(ZOO["mlp"], recipe, dtype=torch.float64, big=True).steps(2)
    training = Training(ZOO["mlp"], recipe, dtype=torch.float64, big=True)
    guard = training.attach(policy=Cap(math.inf), method=method)
    training.steps(2)
    assert guard.history["ratio"][0] > 0.05
    assert_untouched(training.everything(), plain.everything())


@pytest.mark.parametrize("recipe", recipes_for(ZOO["mlp"]), ids=str)
def test_a_capped_step_at_its_own_ratio_is_the_plain_step(recipe):
    """target = r is inside: the boundary belongs to the safe side."""
    watched = Training(ZOO["mlp"], recipe, big=True)
    r = watched.attach(policy=Watch(), method="exact")
    watched.step()
    training = Training(ZOO["mlp"], recipe, big=True)
    guard = training.attach(policy=Cap(r.last.ratio), method="exact")
    training.step()
    assert guard.last.scale == 1.0
    assert_untouched(training.everything(), watched.everything())


# -- zeros of the partition function ----------------------------------------------------------------------------------


def zeros_within(weights, slopes, radius, points=4096):
    """Return how many zeros F(t) = sum_k w_k exp(a_k t) has in a disc: how often F winds round 0 along its rim."""
    t = radius * np.exp(2j * np.pi * np.arange(points) / points)
    values = (weights[:, None] * np.exp(np.outer(slopes, t))).sum(0)
    return round(np.angle(np.roll(values, -1) / values).sum() / (2 * np.pi))


@given(gap=st.floats(-20, 20), slope=st.floats(0.01, 100))
def test_two_classes_meet_their_closed_form(gap, slope):
    """The nearest root of 1 + exp(gap + slope t), found by Newton from nearby in 30 digits."""
    radius = two_class_radius(gap, slope)
    with mpmath.workdps(30):
        guess = mpmath.mpc(-gap / slope + 0.1 / slope, 3.0 / slope)
        root = mpmath.findroot(lambda t: 1 + mpmath.exp(gap + slope * t), guess)
    assert radius == pytest.approx(float(abs(root)), rel=1e-12)
    assert radius_bound(slope) <= radius * (1 + 1e-15)


@given(gap=st.floats(-5, 5), slope=st.floats(0.1, 10))
def test_no_zero_of_two_classes_lies_nearer(gap, slope):
    weights, slopes = np.exp([0.0, gap]), np.array([0.0, slope])
    radius = two_class_radius(gap, slope)
    assert zeros_within(weights, slopes, 0.999 * radius) == 0
    assert zeros_within(weights, slopes, 1.001 * radius) == 2  # a conjugate pair


def test_the_bound_is_met_where_two_classes_are_even():
    assert two_class_radius(0.0, 3.0) == radius_bound(3.0)


@given(
    logits=st.lists(st.floats(-4, 4), min_size=2, max_size=6),
    slopes=st.lists(st.floats(-5, 5), min_size=6, max_size=6),
)
def test_no_zero_of_any_softmax_lies_inside_the_bound(logits, slopes):
    """All phases stay within a half plane up to pi / spread: F has no zero there, whatever the logits are."""
    slopes = np.array(slopes[: len(logits)])
    size = spread(torch.tensor(slopes)).item()
    if size < 1e-3:
        return
    assert zeros_within(np.exp(logits), slopes, 0.999 * radius_bound(size)) == 0


# -- the same at the guard --------------------------------------------------------------------------------------------


class Gap(nn.Module):
    """Two classes with a given gap of their logits; one parameter moves them against each other."""

    def __init__(self, gap, slope):
        super().__init__()
        self.register_buffer("gap", torch.tensor(gap, dtype=torch.float64))
        self.slope, self.t = slope, nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        z = self.gap + self.slope * self.t
        return torch.stack([torch.zeros_like(z), z]).expand(len(x), 2)


@given(gap=st.floats(-20, 20), slope=st.floats(0.01, 100))
def test_the_reported_radius_never_exceeds_the_exact_one(gap, slope):
    case = Case("gap", lambda: Gap(gap, slope), lambda i, d: Batch((torch.zeros(3),), torch.tensor([0, 1, 1])))
    training = Training(case, ALL["SGD"], dtype=torch.float64)
    guard = training.attach(policy=Watch(), method="exact")
    training.step()
    if guard.last is None:  # the gradient was exactly zero
        return
    assert guard.last.radius == pytest.approx(math.pi / slope, rel=1e-12)
    assert guard.last.radius <= two_class_radius(gap, slope) * (1 + 1e-12)


def test_r_is_one_where_the_two_even_classes_have_their_zero():
    """From gap 0 a step of length pi / slope has exactly r = 1."""
    assert step_ratio(2.0 * (math.pi / 2.0)) == 1.0
    case = Case("gap", lambda: Gap(0.0, 2.0), lambda i, d: Batch((torch.zeros(1),), torch.tensor([1])))
    training = Training(case, ALL["SGD"], dtype=torch.float64)
    training.optimizers[0].param_groups[0]["lr"] = math.pi / 2  # the gradient is -slope / 2 = -1
    guard = training.attach(method="exact")
    training.step()
    assert guard.last.step_length == pytest.approx(math.pi / 2, rel=1e-15)
    assert guard.last.ratio == pytest.approx(1.0, rel=1e-15)
    assert guard.last.radius == pytest.approx(math.pi / 2, rel=1e-15)
    assert guard.last.status in (Status.INSIDE, Status.CAPPED)


@given(eigenvalue=st.floats(1e-3, 1e3))
def test_on_a_quadratic_the_curvature_ratio_is_one_at_the_limit_of_stability(eigenvalue):
    """eta lambda = 2: the step ends where the quadratic is as high as where it began."""
    case = Case(
        "quadratic",
        lambda: nn.Linear(1, 1, bias=False),
        lambda i, d: Batch((torch.full((1, 1), math.sqrt(eigenvalue), dtype=d),), torch.ones(1, 1, dtype=d)),
        objective=lambda z, y: (z - y).square().sum() / 2,
    )
    training = Training(case, ALL["SGD"], dtype=torch.float64)
    training.optimizers[0].param_groups[0]["lr"] = 2 / eigenvalue
    guard = training.attach(policy=Watch(), radius=CurvatureRadius("half_mse"))
    training.step()
    # p is a difference of parameters, rounded as they are
    assert guard.last.ratio == pytest.approx(1.0, rel=1e-10)
