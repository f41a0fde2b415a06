"""The nearest zero as mathematics: closed forms, what leaves it as it is, degenerate and refused input."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safestep.errors import OneLogitError
from safestep.formulas.softmax_ratio import two_class_radius
from safestep.zeros import count_zeros, dominance_bound, harmonic_bound, nearest_zero, search, zeros_within

ROUNDING = 1e-11
number = st.floats(-8, 8, allow_subnormal=False)
samples = st.integers(2, 7).flatmap(
    lambda classes: st.tuples(*(st.lists(number, min_size=classes, max_size=classes).map(doubles) for _ in range(2)))
)
some = settings(max_examples=25)


def doubles(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def agree(one, other, factor=1.0):
    """Both certified and equal, within what either claims; or one of them says why it cannot tell."""
    for left, right, *errors in zip(
        *(t.flatten().tolist() for t in (one.radius, other.radius, one.error, other.error)), strict=True
    ):
        if math.isfinite(left) and math.isfinite(right):
            assert abs(right - factor * left) <= factor * errors[0] + errors[1] + ROUNDING * right
        else:
            assert math.isnan(left + right) or left == right


@given(st.floats(-30, 30), st.floats(0.01, 100))
@some
def test_two_classes_in_closed_form(gap, spread):
    found = nearest_zero(doubles([gap, 0.0]), doubles([spread, 0.0]))
    zero = complex(-gap, math.pi) / spread
    assert abs(complex(found.zero) - zero) <= ROUNDING * abs(zero)
    assert float(found.radius) == pytest.approx(two_class_radius(gap, spread), rel=ROUNDING)
    assert float(dominance_bound(doubles([gap, 0.0]), doubles([spread, 0.0]))) == pytest.approx(abs(zero), rel=1e-9)


@pytest.mark.parametrize("gap", [0.0, 1.0, -20.0])
def test_all_zeros_of_two_classes(gap):
    z, a = doubles([gap, 0.0]), doubles([0.5, 0.0])
    expected = [complex(-gap, math.pi * (2 * m + 1)) / 0.5 for m in range(4)]
    radius = abs(complex(gap, 8 * math.pi)) / 0.5
    assert torch.allclose(zeros_within(z, a, radius), torch.tensor(expected, dtype=torch.complex128), rtol=1e-10)
    assert count_zeros(z, a, radius) == 8.0


@given(samples, st.floats(-50, 50), st.floats(-50, 50), st.randoms())
@some
def test_shifts_and_order_of_the_classes_change_nothing(sample, z_shift, a_shift, random):
    z, a = sample
    order = list(range(len(z)))
    random.shuffle(order)
    found = nearest_zero(z, a)
    agree(found, nearest_zero(z[order], a[order]))
    # a shift rounds what is shifted: exact for whole numbers over 2^20
    z, a = (numbers.mul(2**20).round() / 2**20 for numbers in sample)
    agree(nearest_zero(z, a), nearest_zero(z + round(z_shift), a + round(a_shift)))


@given(samples, st.floats(0.01, 100))
@some
def test_the_radius_scales_with_the_step(sample, factor):
    z, a = sample
    agree(nearest_zero(z, a * factor), nearest_zero(z, a), factor)
    agree(nearest_zero(z, a), nearest_zero(z, -a))


@given(samples)
@some
def test_classes_that_move_alike_are_one_class_with_their_weight(sample):
    z, a = sample
    split = torch.cat([z[:1] - math.log(2.0), z[:1] - math.log(2.0), z[1:]])
    agree(nearest_zero(z, a), nearest_zero(split, torch.cat([a[:1], a])))


@given(samples)
@some
def test_bounds_are_below_and_at_least_pi_over_the_spread(sample):
    z, a = sample
    found, spread = nearest_zero(z, a), float(a.max() - a.min())
    if not spread > 1e-9:
        return
    for bound in (dominance_bound(z, a), harmonic_bound(z, a)):
        assert float(bound) >= math.pi / spread * (1 - 1e-12)
        assert math.isnan(found.radius) or float(bound) <= float(found.radius + found.error) * (1 + 1e-12)


def test_the_formula_of_the_top_two_classes_is_no_lower_bound():
    z, a = doubles([2.0, 1.0, 0.0]), doubles([1.0, 1.0, 0.0])
    exact = math.hypot(math.log(math.e**2 + math.e), math.pi)
    assert float(nearest_zero(z, a).radius) == pytest.approx(exact, rel=ROUNDING)
    assert two_class_radius(float(z[0] - z[1]), float(a[0] - a[1])) == math.inf
    # nor with a step that does separate them, by little
    a = doubles([1.0, 0.9, 0.0])
    assert two_class_radius(1.0, 0.1) > 8 * float(nearest_zero(z, a).radius)


def test_a_double_zero_is_found_as_well_as_it_can_be():
    z, a = doubles([0.0, math.log(2.0), 0.0]), doubles([0.0, 1.0, 2.0])
    found = nearest_zero(z, a)
    assert abs(float(found.radius) - math.pi) <= float(found.error) < 1e-6
    assert len(zeros_within(z, a, 4.0)) == 2
    strict = nearest_zero(z, a, tolerance=1e-12)
    assert strict.radius.isnan()
    assert "tolerance=1e-12" in strict.reasons[0]


def test_degenerate_samples_say_why():
    z = doubles([[0.0, 1.0, 2.0], [0.0, math.nan, 0.0], [0.0, 0.0, -math.inf], [-math.inf, -math.inf, -math.inf]])
    a = doubles([[3.0, 3.0, 3.0], [1.0, 2.0, 3.0], [1.0, 0.0, math.nan], [1.0, 2.0, 3.0]])
    found = nearest_zero(z, a)
    assert found.radius[0] == math.inf
    assert found.radius[[1, 3]].isnan().all()
    assert float(found.radius[2]) == pytest.approx(math.pi)
    assert [bool(reason) for reason in found.reasons] == [True, True, False, True]
    assert nearest_zero(doubles([0.0, 0.0]), doubles([0.0, 1e-300])).radius.isnan()
    assert count_zeros(z, a, 4.0).nan_to_num(-1.0).tolist() == [0.0, -1.0, 2.0, -1.0]
    for bound in (dominance_bound(z, a), harmonic_bound(z, a)):
        assert bound.isnan().tolist() == [False, True, False, True]
        assert bound[0] == math.inf


def test_a_zero_on_the_circle_is_not_counted_wrong():
    z, a = doubles([0.0, 0.0]), doubles([1.0, 0.0])
    assert count_zeros(z, a, math.pi).isnan()
    assert count_zeros(z, a, math.pi * (1 - 1e-9)) == 0.0
    assert count_zeros(z, a, math.pi * (1 + 1e-9)) == 2.0
    with pytest.raises(ArithmeticError, match="too near"):
        zeros_within(z, a, math.pi)


def test_a_zero_that_was_missed_is_noticed_by_the_count(monkeypatch):
    z, a = doubles([0.0, 1.0, 0.0]), doubles([-1.0, 0.0, 1.0])  # two pairs, as far away
    enclose = search.enclose

    def all_but_the_nearest(partition, places):
        return iter(list(enclose(partition, places))[1:])

    monkeypatch.setattr(search, "enclose", all_but_the_nearest)
    found = nearest_zero(z, a)
    assert found.radius.isnan()
    assert "the argument principle counts" in found.reasons[0]
    with pytest.raises(ArithmeticError, match="the argument principle counts"):
        zeros_within(z, a, 4.0)


def test_a_zero_too_far_away_is_not_looked_for_for_ever():
    found = nearest_zero(doubles([0.0, -1e5]), doubles([1.0, 0.0]))
    assert found.radius.isnan()
    assert "where the search ends" in found.reasons[0]


def test_batches_keep_their_shape_and_float32_is_what_it_holds():
    z, a = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    found = nearest_zero(z, a)
    assert found.radius.shape == found.zero.shape == found.error.shape == (2, 3)
    assert torch.equal(found.radius[1], nearest_zero(z[1].double(), a[1].double()).radius)
    assert nearest_zero(z[:0], a[:0]).radius.shape == (0, 3)


def test_what_is_no_sample_is_refused():
    z = torch.zeros(3)
    with pytest.raises(ValueError, match=r"\(3,\), their change has \(2,\)"):
        nearest_zero(z, torch.zeros(2))
    with pytest.raises(TypeError, match="int64"):
        nearest_zero(z, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(OneLogitError):
        nearest_zero(z[:1], z[:1])
    with pytest.raises(ValueError, match="tolerance"):
        nearest_zero(z, z, tolerance=0.0)
    with pytest.raises(ValueError, match="radius"):
        count_zeros(z, z, math.inf)
    with pytest.raises(ValueError, match="one sample"):
        zeros_within(z[None], z[None], 1.0)
