"""The quadratic model along a step as mathematics: independent twins, invariances, and what its ratio promises."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.func import hessian
from torch.nn import functional as F

from safestep.formulas.quadratic_ratio import (
    curvature_ratio,
    margin,
    sigmoid_bend,
    softmax_bend,
    spectral_radius,
    square_bend,
)
from safestep.formulas.softmax_ratio import spread

EPS = torch.finfo(torch.float64).eps
value = st.floats(-50, 50, allow_subnormal=False)
logits_and_tangent = st.lists(st.tuples(value, value), min_size=2, max_size=6).map(
    lambda pairs: tuple(torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
)
extreme = st.lists(
    st.tuples(st.floats(-1e4, 1e4), st.floats(-1e3, 1e3, allow_subnormal=False)), min_size=2, max_size=5
).map(lambda pairs: tuple(torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True)))
positive = st.floats(1e-3, 1e3)


def along(loss, at, tangent):
    """Return t H t of a loss of one sample, by reverse over forward mode and a dense matrix."""
    return tangent @ hessian(loss)(at) @ tangent


def largest_square(tangent):
    """Return the scale against which a bend is rounded."""
    return float(tangent.abs().max()) ** 2


# -- twins that share no formula with the code -------------------------------------------------------------------------


@given(logits_and_tangent, st.randoms())
def test_softmax_bend_is_the_hessian_of_cross_entropy_along_the_tangent_whatever_the_label(row, random):
    z, a = row
    label = torch.tensor(random.randrange(len(z)))
    expected = along(lambda at: F.cross_entropy(at, label), z, a)
    torch.testing.assert_close(softmax_bend(z, a), expected, rtol=1e-9, atol=64 * EPS * largest_square(a))


@given(logits_and_tangent, st.floats(0, 1))
def test_soft_and_smoothed_labels_have_no_part_in_softmax_bend(row, smoothing):
    z, a = row
    soft = torch.softmax(torch.arange(len(z), dtype=torch.float64), 0)
    expected = along(lambda at: F.cross_entropy(at, soft, label_smoothing=smoothing), z, a)
    torch.testing.assert_close(softmax_bend(z, a), expected, rtol=1e-9, atol=64 * EPS * largest_square(a))


@given(logits_and_tangent)
def test_sigmoid_bend_is_the_hessian_of_the_binary_cross_entropies_along_the_tangent(row):
    z, a = row
    labels = torch.linspace(0, 1, len(z), dtype=torch.float64)
    expected = along(lambda at: F.binary_cross_entropy_with_logits(at, labels, reduction="sum"), z, a)
    torch.testing.assert_close(sigmoid_bend(z, a), expected, rtol=1e-9, atol=64 * EPS * largest_square(a))


@given(logits_and_tangent)
def test_square_bend_is_the_hessian_of_half_the_squared_error_along_the_tangent(row):
    z, a = row
    expected = along(lambda at: 0.5 * (at - 3.0).square().sum(), z, a)
    torch.testing.assert_close(square_bend(a), expected, rtol=1e-12, atol=0)


@given(extreme)
def test_softmax_bend_at_extreme_logits_is_the_variance_to_fifty_digits(row):
    z, a = row
    with mpmath.workdps(50):
        top = max(z.tolist())
        masses = [mpmath.exp(mpmath.mpf(one) - top) for one in z.tolist()]
        mean = mpmath.fdot(masses, a.tolist()) / mpmath.fsum(masses)
        variance = mpmath.fsum(m * (t - mean) ** 2 for m, t in zip(masses, a.tolist(), strict=True)) / sum(masses)
    # a mean that is rounded by eps |a| moves the second moment around it by the square of that;
    # a logit of 1e4 that is rounded by eps moves its probability by 1e4 eps
    rounding = (8 * EPS) ** 2 * largest_square(a)
    assert float(softmax_bend(z, a)) == pytest.approx(float(variance), rel=1e-11, abs=rounding)


@given(extreme)
def test_sigmoid_bend_at_extreme_logits_does_not_cancel(row):
    z, a = row
    with mpmath.workdps(50):
        likely = [1 / (1 + mpmath.exp(-mpmath.mpf(one))) for one in z.tolist()]
        expected = mpmath.fsum(
            p / (1 + mpmath.exp(mpmath.mpf(one))) * mpmath.mpf(t) ** 2
            for p, one, t in zip(likely, z.tolist(), a.tolist(), strict=True)
        )
    assert float(sigmoid_bend(z, a)) == pytest.approx(float(expected), rel=1e-11, abs=1e-300)


# -- invariances of the bends ------------------------------------------------------------------------------------------


@given(logits_and_tangent, st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_softmax_bend_ignores_shifts_common_to_all_classes(row, logit_shift, tangent_shift):
    z, a = row
    width, rounded = float(spread(a)), 4 * EPS * (float(a.abs().max()) + abs(tangent_shift))
    shifted = softmax_bend(z + logit_shift, a + tangent_shift)
    # rounding z + shift moves every probability by that share of itself, rounding a + shift every deviation
    moved = 4 * EPS * (float(z.abs().max()) + abs(logit_shift)) * width**2
    assert abs(float(shifted - softmax_bend(z, a))) <= moved + 2 * width * rounded + rounded**2 + 16 * EPS * width**2


@given(logits_and_tangent, st.randoms())
def test_bends_ignore_the_order_of_the_classes(row, random):
    z, a = row
    order = list(range(len(z)))
    random.shuffle(order)
    rounding = 64 * EPS * largest_square(a)
    torch.testing.assert_close(softmax_bend(z[order], a[order]), softmax_bend(z, a), rtol=0, atol=rounding)
    torch.testing.assert_close(sigmoid_bend(z[order], a[order]), sigmoid_bend(z, a), rtol=1e-14, atol=0)
    torch.testing.assert_close(square_bend(a[order]), square_bend(a), rtol=1e-14, atol=0)


@given(logits_and_tangent, st.integers(-40, 40))
def test_bends_are_homogeneous_of_degree_two(row, power):
    z, a = row
    scale = -(2.0**power)  # powers of two round nothing, so the equality is exact
    assert softmax_bend(z, scale * a) == scale**2 * softmax_bend(z, a)
    assert sigmoid_bend(z, scale * a) == scale**2 * sigmoid_bend(z, a)
    assert square_bend(scale * a) == scale**2 * square_bend(a)


@given(logits_and_tangent, st.sampled_from([0.0, 7.0, -1e30, math.inf, -math.inf, math.nan]))
def test_a_masked_class_has_no_part_whatever_its_tangent(row, tangent):
    z, a = row
    masked = torch.cat([z, torch.tensor([-math.inf])]), torch.cat([a, torch.tensor([tangent])])
    torch.testing.assert_close(softmax_bend(*masked), softmax_bend(z, a), rtol=0, atol=64 * EPS * largest_square(a))


@given(logits_and_tangent)
def test_a_class_of_its_own_bends_nothing(row):
    z, a = row
    assert softmax_bend(torch.where(torch.arange(len(z)) == 1, z, -math.inf), a) == 0.0


@given(logits_and_tangent)
def test_softmax_bend_is_at_most_a_quarter_of_the_squared_spread(row):
    """Popoviciu's inequality, with equality for two classes of probability one half."""
    z, a = row
    bend, quarter = float(softmax_bend(z, a)), float(spread(a)) ** 2 / 4
    assert 0.0 <= bend <= quarter + (64 * EPS) * largest_square(a)
    assert softmax_bend(torch.zeros(2).double(), a[:2]) == pytest.approx(float(spread(a[:2])) ** 2 / 4, rel=1e-12)


@given(value, value)
def test_sigmoid_bend_is_the_two_class_softmax_bend(logit, tangent):
    z, a = (torch.tensor([0.0, one], dtype=torch.float64) for one in (logit, tangent))
    rounding = EPS**2 * tangent**2 + 8 * 2.0**-1074  # below the normal numbers a unit in the last place is no share
    torch.testing.assert_close(sigmoid_bend(z[1:], a[1:]), softmax_bend(z, a), rtol=1e-12, atol=rounding)


@given(logits_and_tangent, st.sampled_from([0.0, 1.0, -700.0, 1e300, math.inf, math.nan]))
def test_a_sample_never_has_a_part_in_another(row, other):
    z, a = row
    for bend in (softmax_bend, sigmoid_bend):
        # the same kernel on the same layout, so that the bits are to be the same
        with_itself = bend(torch.stack([z, z.flip(0)]), torch.stack([a, -a]))
        with_other = bend(torch.stack([z, torch.full_like(z, other)]), torch.stack([a, torch.full_like(a, other)]))
        assert with_itself[0] == with_other[0]
        assert bend(torch.stack([z, z]), torch.stack([a, a])).isfinite().all()
        # alone an element may lie in the tail of a vector instead of its body, where processors round exp otherwise:
        # every weight moves by a few ulps of its own, and a mean by eps |a|, of which a variance feels the square
        alone = torch.stack([bend(z, a), bend(z.flip(0), -a)])
        torch.testing.assert_close(with_itself, alone, rtol=32 * EPS, atol=(8 * EPS) ** 2 * largest_square(a))


def test_nan_in_a_class_that_counts_is_not_swallowed():
    z, a = torch.zeros(1, 2), torch.tensor([[1.0, math.nan]])
    assert softmax_bend(z, a).isnan().all()
    assert sigmoid_bend(z, a).isnan().all()
    assert square_bend(a).isnan().all()


# -- the ratio ---------------------------------------------------------------------------------------------------------


@st.composite
def quadratics(draw):
    """A quadratic loss with eigenvalues from 1e-3 to 1e3 in a random basis: its Hessian, them, and their vectors."""
    eigenvalues = np.array(sorted(draw(st.lists(positive, min_size=1, max_size=5))))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    basis, _ = np.linalg.qr(generator.standard_normal((len(eigenvalues), len(eigenvalues))))
    return basis * eigenvalues @ basis.T, eigenvalues, basis


@given(quadratics(), positive, st.floats(1e-2, 1e2))
def test_along_an_eigenvector_the_ratio_is_half_the_margin(quadratic, rate, distance):
    hessian_, eigenvalues, basis = quadratic
    for eigenvalue, vector in zip(eigenvalues, basis.T, strict=True):
        gradient = hessian_ @ (distance * vector)
        p = -rate * gradient
        ratio = curvature_ratio(float(p @ hessian_ @ p), float(gradient @ p))
        spread_of_eigenvalues = eigenvalues[-1] / eigenvalue
        assert ratio == pytest.approx(margin(rate, eigenvalue) / 2, rel=1e-13 * max(1.0, spread_of_eigenvalues**2))


@given(st.integers(-20, 20), st.integers(-20, 20))
def test_the_ratio_is_one_exactly_at_the_stability_limit(power, scale):
    """With powers of two nothing is rounded: eta lambda = 2 is r = 1, bit for bit."""
    eigenvalue, gradient = 2.0**power, 2.0**scale
    rate = 2.0 / eigenvalue
    p = -rate * gradient
    assert curvature_ratio(p * eigenvalue * p, gradient * p) == margin(rate, eigenvalue) / 2 == 1.0


@given(quadratics(), st.integers(0, 2**32 - 1))
def test_on_a_quadratic_half_is_the_exact_line_search_and_one_is_back_where_it_started(quadratic, seed):
    hessian_, eigenvalues, _ = quadratic
    generator = np.random.default_rng(seed)
    at, p = generator.standard_normal((2, len(eigenvalues)))
    gradient = hessian_ @ at
    p = p if gradient @ p < 0 else -p
    assume(abs(gradient @ p) > 1e-3 * np.linalg.norm(gradient) * np.linalg.norm(p))
    ratio = curvature_ratio(float(p @ hessian_ @ p), float(gradient @ p))

    def loss(scale):
        end = at + scale * p
        return end @ hessian_ @ end / 2

    lowest, back = 1 / (2 * ratio), 1 / ratio
    rounding = 1e-9 * loss(0.0)
    assert (hessian_ @ (at + lowest * p)) @ p == pytest.approx(0.0, abs=1e-9 * abs(gradient @ p))
    assert loss(back) == pytest.approx(loss(0.0), abs=rounding)
    assert loss(0.5 * back) <= min(loss(0.4 * back), loss(0.6 * back)) + rounding
    assert loss(1.5 * back) > loss(0.0) > loss(0.9 * back)


@given(positive, positive, st.integers(-40, 40), st.integers(-40, 40))
def test_the_ratio_ignores_the_unit_of_the_loss_and_grows_with_the_step(bend, slope, unit, length):
    ratio, unit, length = curvature_ratio(bend, -slope), 2.0**unit, 2.0**length
    assert curvature_ratio(unit * bend, -unit * slope) == ratio
    assert curvature_ratio(length**2 * bend, -length * slope) == length * ratio


@given(positive, positive)
def test_where_the_model_limits_nothing_or_every_length_the_ratio_says_so(bend, slope):
    assert curvature_ratio(0.0, -slope) == curvature_ratio(-bend, -slope) == 0.0
    assert curvature_ratio(0.0, 0.0) == curvature_ratio(-bend, 0.0) == 0.0
    assert curvature_ratio(bend, slope) == curvature_ratio(bend, 0.0) == math.inf
    assert curvature_ratio(0.0, slope) == curvature_ratio(-bend, slope) == math.inf
    assert math.isnan(curvature_ratio(math.nan, -slope))
    assert math.isnan(curvature_ratio(bend, math.nan))


# -- gradient descent --------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e2, 1e2), min_size=1, max_size=6), st.floats(0, 10), st.integers(0, 2**32 - 1))
def test_spectral_radius_is_that_of_the_update_map_for_any_sign_of_the_spectrum(eigenvalues, rate, seed):
    generator = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(generator.standard_normal((len(eigenvalues), len(eigenvalues))))
    hessian_ = basis * np.array(eigenvalues) @ basis.T
    update = np.eye(len(eigenvalues)) - rate * (hessian_ + hessian_.T) / 2
    expected = np.abs(np.linalg.eigvalsh(update)).max()
    assert spectral_radius(rate, min(eigenvalues), max(eigenvalues)) == pytest.approx(expected, abs=1e-10)


@given(quadratics(), st.floats(0.05, 4.0))
def test_gradient_descent_is_stable_below_a_margin_of_two_and_not_above(quadratic, wanted):
    _, eigenvalues, _ = quadratic
    assume(abs(wanted - 2.0) > 1e-9)
    rate = wanted / float(eigenvalues[-1])
    grows = spectral_radius(rate, float(eigenvalues[0]), float(eigenvalues[-1])) > 1.0
    assert grows == (margin(rate, float(eigenvalues[-1])) > 2.0)
