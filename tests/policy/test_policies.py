"""Policies: the scale each chooses, schedules as targets, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safestep import Cap, Pin, Reading, Watch

ratios = st.floats(1e-300, 1e300)


def reading(ratio: float, step: int = 0) -> Reading:
    return Reading(step, ratio, "test")


@given(ratios, st.floats(1e-3, 1e3))
def test_cap_never_lengthens_and_meets_the_target(ratio, target):
    scale, state = Cap(target).scale(reading(ratio), None)
    assert state is None
    assert scale == 1.0 if ratio <= target else scale * ratio == pytest.approx(target, rel=1e-12)
    assert 0.0 < scale <= 1.0


@given(ratios, st.floats(1e-3, 1e3))
def test_pin_meets_the_target_from_both_sides(ratio, target):
    scale, _ = Pin(target).scale(reading(ratio), None)
    assert scale * ratio == pytest.approx(target, rel=1e-12)


def test_nothing_limits_an_unbounded_step():
    assert Cap(0.1).scale(reading(0.0), None)[0] == Pin(0.1).scale(reading(0.0), None)[0] == 1.0


def test_pin_leaves_a_step_too_small_to_be_a_step():
    assert Pin(1.0).scale(reading(5e-324), None)[0] == 1.0


def test_an_infinite_target_never_caps():
    assert Cap(math.inf).scale(reading(1e300), None)[0] == 1.0


def test_targets_follow_the_step():
    policy = Cap(lambda step: 1.0 / (1 + step))
    assert policy.scale(reading(1.0, step=3), None)[0] == 0.25
    assert policy.target_at(1) == 0.5


def test_watch_leaves_the_step_and_says_what_would_be():
    assert Watch().scale(reading(9.0), None) == (1.0, None)
    assert Watch().would(reading(9.0), None) == 1.0
    assert math.isnan(Watch().target_at(0))
    watched = Watch(Cap(3.0))
    assert (watched.scale(reading(9.0), None)[0], watched.would(reading(9.0), None)) == (1.0, 1 / 3)
    assert watched.target_at(0) == 3.0


@pytest.mark.parametrize("policy", [Cap, Pin])
@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, True, "1", None])
def test_targets_are_checked_at_construction(policy, target):
    with pytest.raises(ValueError, match="positive number"):
        policy(target)


def test_scheduled_targets_are_checked_at_their_step():
    with pytest.raises(ValueError, match=r"target\(4\) = -1"):
        Cap(lambda step: -1).scale(reading(1.0, step=4), None)
    assert Cap(lambda step: np.float32(0.5)).target_at(0) == 0.5


def test_pin_refuses_infinity_and_watch_what_is_no_policy():
    with pytest.raises(ValueError, match="finite target"):
        Pin(math.inf)
    with pytest.raises(ValueError, match="finite target"):
        Pin(lambda step: math.inf).target_at(0)
    with pytest.raises(ValueError, match="expected a policy"):
        Watch(1.0)
