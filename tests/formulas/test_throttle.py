"""The laws of the throttle as mathematics: fixed points, when they hold, bounds, and a plane of runs in one call."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from safestep.formulas.throttle_laws import order_0, order_1, order_2, quantised, running_mean, secant_curvature

chis = st.floats(0.05, 1.95)
margins = st.floats(1e-3, 1e3)
scales = st.floats(0, 1)
gains = st.floats(1e-3, 2.0)
dampings = st.floats(0, 0.95)
EVERYWHERE = {"low": -math.inf, "high": math.inf}


def repeated(law, state, steps):
    for _ in range(steps):
        state = law(*state)
    return state


# -- order 0 -----------------------------------------------------------------------------------------------------------


@given(margins, chis)
def test_order_0_puts_a_margin_above_its_aim_at_the_aim_and_leaves_others_alone(margin, chi):
    alpha = float(order_0(margin, chi))
    assert alpha * margin == (pytest.approx(chi, rel=1e-15) if margin > chi else margin)


@given(chis)
def test_order_0_in_the_limits(chi):
    assert order_0(0.0, chi) == 1.0
    assert order_0(math.inf, chi) == 0.0
    assert order_0(math.inf, chi, low=0.25) == 0.25
    assert order_0(0.0, chi, high=3.0) == 3.0
    assert order_0(chi, chi) == 1.0
    assert order_0(math.nan, chi).isnan()


@given(margins, margins, chis)
def test_order_0_never_gives_a_larger_margin_a_larger_scale(one, other, chi):
    assert order_0(max(one, other), chi) <= order_0(min(one, other), chi)


# -- order 1 -----------------------------------------------------------------------------------------------------------


@given(margins, chis, gains)
def test_order_1_rests_where_order_0_would_go(margin, chi, gain):
    rest = chi / margin
    assert float(order_1(rest, margin, chi, gain, **EVERYWHERE)) == pytest.approx(rest, rel=1e-13, abs=1e-15)


@given(scales, margins, chis, gains)
def test_order_1_multiplies_its_distance_from_rest_by_one_minus_gain_times_margin(alpha, margin, chi, gain):
    rest = chi / margin
    moved = float(order_1(alpha, margin, chi, gain, **EVERYWHERE))
    scale = 1.0 + abs(rest) + gain * margin
    assert moved - rest == pytest.approx((1 - gain * margin) * (alpha - rest), abs=1e-13 * scale)


@given(st.floats(0.05, 3.95), chis, gains)
def test_order_1_is_stable_exactly_while_gain_times_margin_is_below_two(product, chi, gain):
    assume(abs(product - 2.0) > 0.05)
    margin = product / gain
    rest = chi / margin
    (alpha,) = repeated(
        lambda alpha: (order_1(alpha, margin, chi, gain, **EVERYWHERE),), (torch.tensor(1.001 * rest).double(),), 300
    )
    distance = abs(float(alpha) / rest - 1.0)
    assert distance < 1e-6 if product < 2.0 else distance > 1e2


@given(st.floats(2.1, 1e3), chis)
def test_order_1_beyond_its_limit_stays_within_bounds_and_finds_no_rest(product, chi):
    gain, margin = 0.1, product / 0.1
    (late,) = repeated(lambda alpha: (order_1(alpha, margin, chi, gain),), (torch.tensor(1.0).double(),), 200)
    later = order_1(late, margin, chi, gain)
    assert 0.0 <= float(late) <= 1.0
    assert abs(float(later - late)) > 1e-3 * chi / margin


# -- order 2 -----------------------------------------------------------------------------------------------------------


@given(margins, chis, gains, dampings)
def test_order_2_rests_at_the_same_place_with_no_velocity(margin, chi, gain, damping):
    rest = chi / margin
    alpha, velocity = order_2(rest, 0.0, margin, chi, gain, damping, **EVERYWHERE)
    assert (float(alpha), float(velocity)) == pytest.approx((rest, 0.0), rel=1e-13, abs=1e-13)


@given(scales, st.floats(-1, 1), margins, chis, gains)
def test_order_2_without_damping_is_order_1(alpha, velocity, margin, chi, gain):
    moved, change = order_2(alpha, velocity, margin, chi, gain, damping=0.0)
    assert moved == order_1(alpha, margin, chi, gain)
    assert float(change) == pytest.approx(gain * (chi - alpha * margin), rel=1e-15)


@given(st.floats(0.05, 5.0), chis, gains, dampings)
def test_order_2_grows_as_the_eigenvalues_of_its_map_say(product, chi, gain, damping):
    """(u, alpha - rest) is mapped by [[d, -k m], [d, 1 - k m]], which is stable while k m < 2 (1 + d)."""
    assume(abs(product - 2 * (1 + damping)) > 0.05)
    linear = np.array([[damping, -product], [damping, 1.0 - product]])
    stable = np.abs(np.linalg.eigvals(linear)).max() < 1.0
    assert stable == (product < 2 * (1 + damping))
    margin = product / gain
    rest, start = chi / margin, np.array([0.0, 1e-3 * chi / margin])
    alpha, velocity = repeated(
        lambda alpha, velocity: order_2(alpha, velocity, margin, chi, gain, damping, **EVERYWHERE),
        (torch.tensor(rest + start[1]).double(), torch.tensor(0.0).double()),
        5,
    )
    expected = np.linalg.matrix_power(linear, 5) @ start
    size = np.linalg.norm(linear, 2) ** 5
    assert [float(velocity), float(alpha) - rest] == pytest.approx(list(expected), abs=1e-12 * rest * max(1.0, size))


# -- every order -------------------------------------------------------------------------------------------------------

LAWS = {
    "order 0": lambda alpha, velocity, margin, bounds: (order_0(margin, 1.5, **bounds),),
    "order 1": lambda alpha, velocity, margin, bounds: (order_1(alpha, margin, 1.5, **bounds),),
    "order 2": lambda alpha, velocity, margin, bounds: order_2(alpha, velocity, margin, 1.5, **bounds),
}
every_law = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())
planes = npst.arrays(np.float64, (3, 2), elements=st.floats(0, 1e3))


@every_law
@given(scales, st.floats(-5, 5), st.floats(0, 1e6), scales, scales)
def test_a_scale_is_never_out_of_its_bounds(law, alpha, velocity, margin, one, other):
    low, high = min(one, other), max(one, other)
    assert low <= float(law(alpha, velocity, margin, {"low": low, "high": high})[0]) <= high


@every_law
@given(planes, planes, planes)
def test_a_plane_of_runs_is_every_run_by_itself(law, alphas, velocities, margins):
    plane = law(*map(torch.as_tensor, (alphas, velocities, margins)), {})
    for place in np.ndindex(3, 2):
        alone = law(float(alphas[place]), float(velocities[place]), float(margins[place]), {})
        assert [float(part[place]) for part in plane] == [float(part) for part in alone]


@every_law
@given(st.lists(st.floats(0, 1e3, width=32), min_size=1, max_size=4))
def test_a_scale_is_worked_out_in_double_precision_whatever_the_margin_comes_in(law, margins):
    narrow = law(0.1, 0.05, torch.tensor(margins, dtype=torch.float32), {})
    wide = law(0.1, 0.05, torch.tensor(margins, dtype=torch.float64), {})
    assert all(part.dtype is torch.float64 for part in narrow)
    assert [part.tolist() for part in narrow] == [part.tolist() for part in wide]


@given(st.floats(0, 1), st.floats(1e-6, 1e3), st.floats(0, 10), scales)
def test_a_quantised_scale_keeps_both_bounds_where_it_says_so_and_order_0_always(alpha, length, quantum, highest):
    scale, feasible = quantised(alpha, length, quantum, highest)
    assert bool(feasible) == (quantum / length <= highest)
    assert float(scale) <= highest
    if feasible:
        assert float(scale) >= quantum / length
        if quantum / length <= alpha <= highest:
            assert float(scale) == alpha
    else:
        assert float(scale) == highest


@given(scales, margins, chis)
def test_no_quantum_clips_at_order_0_alone(alpha, margin, chi):
    highest = order_0(margin, chi)
    scale, feasible = quantised(alpha, 1.0, 0.0, highest)
    assert feasible
    assert float(scale) == min(alpha, float(highest))


# -- the secant --------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(1e-3, 1e2) | st.floats(-1e2, -1e-3), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_the_secant_curvature_of_a_quadratic_lies_within_its_spectrum(eigenvalues, seed):
    moved = np.random.default_rng(seed).standard_normal(len(eigenvalues))
    curvature = secant_curvature(float(np.linalg.norm(np.array(eigenvalues) * moved)), float(np.linalg.norm(moved)))
    sizes = [abs(eigenvalue) for eigenvalue in eigenvalues]
    assert min(sizes) * (1 - 1e-12) <= curvature <= max(sizes) * (1 + 1e-12)


@given(margins, st.floats(1e-3, 1), st.integers(1, 60))
def test_the_running_mean_of_a_constant_is_short_of_it_by_what_is_left_of_its_start(curvature, beta, steps):
    (mean,) = repeated(lambda mean: (running_mean(mean, curvature, beta),), (0.0,), steps)
    assert mean == pytest.approx((1 - (1 - beta) ** steps) * curvature, rel=1e-12)


@given(margins, margins)
def test_the_running_mean_in_the_limits(mean, curvature):
    assert running_mean(mean, curvature, beta=0.0) == mean
    assert running_mean(mean, curvature, beta=1.0) == curvature
