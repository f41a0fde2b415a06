"""The softmax formulas as mathematics: properties, the complex zero they stand for, degenerate limits."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safestep.formulas.softmax_ratio import radius_bound, spread, step_ratio, two_class_radius

logit = st.floats(-50, 50, allow_subnormal=False)
rows = st.lists(logit, min_size=2, max_size=6).map(lambda row: torch.tensor(row, dtype=torch.float64))


@given(rows, st.floats(-1e3, 1e3), st.randoms())
def test_spread_ignores_common_shift_and_order(row, shift, random):
    order = list(range(len(row)))
    random.shuffle(order)
    rounding = 4 * torch.finfo(row.dtype).eps * (row.abs().max() + abs(shift))
    assert abs(spread(row + shift) - spread(row)) <= rounding
    assert spread(row[order]) == spread(row)


@given(rows, st.integers(-40, 40), st.sampled_from(["softmax", "sigmoid"]))
def test_spread_is_absolutely_homogeneous(row, power, head):
    # powers of two round nothing, so the equality is exact
    assert spread(-(2.0**power) * row, head=head) == 2.0**power * spread(row, head=head)


@given(rows)
def test_sigmoid_spread_is_the_two_class_softmax_spread(row):
    pairs = torch.stack([torch.zeros_like(row), row], dim=-1)
    assert spread(row, head="sigmoid") == spread(pairs).max()


def test_shapes_pass_through():
    assert spread(torch.zeros(2, 3, 5)).shape == (2, 3)
    assert spread(torch.zeros(5)).shape == ()


def test_nan_is_not_swallowed():
    assert torch.isnan(spread(torch.tensor([1.0, math.nan, 2.0])))
    assert torch.isnan(spread(torch.tensor([1.0, math.nan, 2.0]), head="sigmoid"))


@pytest.mark.parametrize(("shape", "words"), [((), "shape"), ((3, 0), "shape"), ((3, 1), "head='sigmoid'")])
@pytest.mark.usefixtures("unchecked_shapes")
def test_spread_refuses_what_has_no_classes(shape, words):
    with pytest.raises(ValueError, match=words):
        spread(torch.zeros(shape))


@given(rows, rows)
def test_no_zero_of_the_partition_function_lies_inside_the_bound(weights, slopes):
    """On |t| < pi/spread(a) the sum F(t) = sum w_k exp(a_k t) has no zero: its phases share a half plane."""
    size = min(len(weights), len(slopes))
    w, a = weights[:size], slopes[:size]
    radius = radius_bound(float(spread(a)))
    if not 1e-6 < radius < 1e6:
        return
    angles = torch.linspace(0, 2 * math.pi, 65, dtype=torch.float64)
    t = 0.999 * radius * torch.exp(1j * angles)
    phases = a[:, None] * t.imag
    spanned = phases.amax(0) - phases.amin(0)
    assert (spanned < math.pi).all()
    exponent = w[:, None] + a[:, None] * t
    scaled = torch.exp(exponent - exponent.real.amax(0))  # divide out the largest term: only zeros matter
    assert (scaled.sum(0).abs() > 0).all()


@given(st.floats(-30, 30), st.floats(1e-3, 1e3))
def test_two_class_radius_is_where_the_zero_lies(gap, slope):
    zero = mpmath.mpc(-gap, mpmath.pi) / slope
    assert abs(1 + mpmath.exp(gap + slope * zero)) < 1e-10
    assert two_class_radius(gap, slope) == pytest.approx(float(abs(zero)), rel=1e-12)
    assert two_class_radius(gap, slope) >= radius_bound(slope)


def test_the_two_class_formula_is_no_bound_for_three_classes():
    """z = (2, 1, 0), a = (1, 1, 0): the top two never separate, yet a zero lies at distance 3.90."""
    log_weight = mpmath.log(mpmath.e**2 + mpmath.e)
    zero = -log_weight + mpmath.pi * 1j  # (e^2 + e) e^t + 1 = 0
    assert abs((mpmath.e**2 + mpmath.e) * mpmath.exp(zero) + 1) < 1e-12
    assert float(abs(zero)) == pytest.approx(3.90, abs=0.005)
    assert two_class_radius(1.0, 0.0) == math.inf  # the formula on the top two classes


def test_degenerate_limits():
    assert radius_bound(0.0) == two_class_radius(1.0, 0.0) == math.inf
    assert step_ratio(0.0) == 0.0
    assert step_ratio(2 * math.pi) == 2.0
