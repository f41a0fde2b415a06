"""The throttle as a policy: its laws, what it remembers, and the radius that comes with it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safestep import Cap, CurvatureRadius, SoftmaxRadius, Status, Throttle, Watch, default_limit
from safestep.formulas.throttle_laws import order_2
from safestep.guard.checkpoint import Saved
from zoo import ALL, ZOO, Training
from zoo.asserts import assert_untouched
from zoo.policies import scale_of

RATIOS = st.floats(1e-6, 1e6)


@given(ratio=RATIOS, chi=st.floats(0.1, 1.9))
def test_order_0_is_a_cap_at_half_chi(ratio, chi):
    throttle = Throttle(chi=chi)
    assert scale_of(throttle, ratio)[0] == pytest.approx(scale_of(Cap(chi / 2), ratio)[0], rel=1e-15)
    assert throttle.target_at(7) == chi / 2


@given(ratio=st.floats(0.0, 0.75))
def test_order_0_leaves_every_step_inside_alone(ratio):
    assert scale_of(Throttle(chi=1.5), ratio)[0] == 1.0


@given(ratios=st.lists(RATIOS, min_size=1, max_size=20), order=st.sampled_from([0, 1, 2]))
def test_alpha_stays_in_its_bounds(ratios, order):
    throttle, state = Throttle(order=order, low=0.1, high=0.9, start=0.5), None
    for ratio in ratios:
        alpha, state = scale_of(throttle, ratio, state)
        assert 0.1 <= alpha <= 0.9


def test_order_2_is_the_published_recursion():
    throttle, state, expected = Throttle(order=2), None, (0.0, 0.0)
    for ratio in (4.0, 3.0, 5.0, 0.0, 4.0):
        expected = order_2(*expected, 2 * ratio, 1.5)
        alpha, state = scale_of(throttle, ratio, state)
        assert alpha == float(expected[0])


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_step_uphill_leaves_alpha_as_it_is(order):
    throttle = Throttle(order=order)
    _, state = scale_of(throttle, 4.0)
    assert scale_of(throttle, math.inf, state) == (0.0, state)


def test_a_quantum_lifts_alpha_up_to_what_order_0_allows():
    throttle = Throttle(order=1, quantum=0.3)
    assert scale_of(throttle, 1.0, length=1.0)[0] == pytest.approx(0.3)  # k chi = 0.15 would be rounded away
    assert not throttle.says(1.0, 1.0, 0.75)
    assert scale_of(throttle, 10.0, length=1.0)[0] == pytest.approx(0.075)
    assert "shorter than the quantum" in throttle.says(10.0, 1.0, 0.75)


def test_the_quantum_reaches_the_record():
    training = Training(ZOO["mlp"], ALL["SGD"], big=True)
    guard = training.attach(policy=Throttle(quantum=1e3))
    training.step()
    assert "quantum" in guard.last.message


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"chi": 0.0}, "chi"),
        ({"chi": 2.0}, "chi"),
        ({"chi": math.nan}, "chi"),
        ({"order": 3}, "order"),
        ({"gain": 0.0}, "gain"),
        ({"damping": 1.0}, "damping"),
        ({"low": 0.5, "high": 0.4}, "low"),
        ({"start": 2.0}, "start"),
        ({"start": -1.0}, "start"),
        ({"high": 0.0}, "high > 0"),
        ({"high": math.inf}, "high"),
        ({"quantum": 0.0}, "quantum"),
    ],
)
def test_options_are_checked(options, text):
    with pytest.raises(ValueError, match=text):
        Throttle(**options)


# -- at the guard -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [Throttle(), Watch(Throttle())], ids=str)
def test_it_comes_with_the_curvature_radius(policy):
    guard = Training(ZOO["mlp"], ALL["SGD"]).attach(policy=policy)
    assert guard.radius == CurvatureRadius()


def test_other_policies_come_with_the_default_limit():
    """Which is one on descent: an optimizer that maximises has the softmax radius."""
    for policy in (None, Cap(1.0), Watch(), Watch(Cap(1.0))):
        assert Training(ZOO["mlp"], ALL["Adam"]).attach(policy=policy).radius == default_limit()
        assert Training(ZOO["mlp"], ALL["SGD-maximize"]).attach(policy=policy).radius == SoftmaxRadius()


def test_below_its_aim_training_is_bit_for_bit_the_plain_one():
    plain, training = Training(ZOO["mlp"], ALL["SGD"]), Training(ZOO["mlp"], ALL["SGD"])
    guard = training.attach(policy=Throttle())
    for one in (plain, training):
        one.steps(5)
    assert set(guard.history["status"]) == {Status.INSIDE}
    assert_untouched(training.everything(), plain.everything())


def test_watched_it_says_what_it_would_have_done():
    plain, training = Training(ZOO["mlp"], ALL["SGD"], big=True), Training(ZOO["mlp"], ALL["SGD"], big=True)
    guard = training.attach(policy=Watch(Throttle(order=1)))
    for one in (plain, training):
        one.steps(3)
    alpha, expected = 0.0, []
    for ratio in guard.history["ratio"]:
        if math.isfinite(ratio):
            alpha = min(max(alpha + 0.1 * (1.5 - alpha * 2 * ratio), 0.0), 1.0)
        expected.append(alpha if math.isfinite(ratio) else 0.0)
    assert guard.history["would_scale"] == pytest.approx(expected)
    assert_untouched(training.everything(), plain.everything())


@pytest.mark.parametrize("order", [1, 2])
def test_alpha_goes_into_the_state(order):
    training = Training(ZOO["mlp"], ALL["SGD"], big=True)
    guard = training.attach(policy=Throttle(order=order))
    training.steps(2)
    assert Saved.of(guard.state_dict(), guard.radius, guard.policy).policy["alpha"] == guard.last.scale
