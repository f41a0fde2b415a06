"""Policies: the scale each chooses, schedules as targets, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safestep import Cap, Pin, Throttle, Watch
from zoo.policies import scale_of

ratios = st.floats(1e-300, 1e300)


@given(ratios, st.floats(1e-3, 1e3))
def test_cap_never_lengthens_and_meets_the_target(ratio, target):
    scale, state = scale_of(Cap(target), ratio)
    assert state is None
    assert scale == 1.0 if ratio <= target else scale * ratio == pytest.approx(target, rel=1e-12)
    assert 0.0 < scale <= 1.0


@pytest.mark.parametrize(("ratio", "told"), [(1e-7, True), (1e-5, False), (3.0, False), (0.0, False)])
def test_pin_says_when_what_it_lengthens_may_be_rounding(ratio, told):
    assert ("lengthened 1e+07 times" in Pin(1.0).says(ratio, 1.0, 1.0)) == told


@given(ratios, st.floats(1e-3, 1e3))
def test_pin_meets_the_target_from_both_sides(ratio, target):
    scale, _ = scale_of(Pin(target), ratio)
    assert scale * ratio == pytest.approx(target, rel=1e-12)


def test_nothing_limits_an_unbounded_step():
    assert scale_of(Cap(0.1), 0.0)[0] == scale_of(Pin(0.1), 0.0)[0] == 1.0


def test_pin_leaves_a_step_too_small_to_be_a_step():
    assert scale_of(Pin(1.0), 5e-324)[0] == 1.0


def test_an_infinite_target_never_caps():
    assert scale_of(Cap(math.inf), 1e300)[0] == 1.0


def test_targets_follow_the_step():
    policy = Cap(lambda step: 1.0 / (1 + step))
    assert scale_of(policy, 1.0, step=3)[0] == 0.25
    assert policy.target_at(1) == 0.5


def test_watch_says_what_would_be_and_never_writes():
    assert scale_of(Watch(), 9.0) == (1.0, None)
    assert math.isnan(Watch().target_at(0))
    assert scale_of(Watch(Cap(3.0)), 9.0)[0] == 1 / 3
    assert Watch(Cap(3.0)).target_at(0) == 3.0
    assert not Watch(Cap(3.0)).writes


@given(st.lists(st.one_of(ratios, st.just(math.inf)), min_size=1, max_size=8), st.integers(1, 4))
def test_many_steps_at_once_are_each_scaled_as_alone(several, steps):
    """What a guard does to one step is what an ensemble does to each of its runs, states included."""
    laws = [
        Throttle(order=order, low=0.1, start=0.3, quantum=quantum) for order in (0, 1, 2) for quantum in (None, 0.2)
    ]
    for policy in (Cap(0.5), Pin(0.5), Watch(Cap(2.0)), *laws):
        alone, together = [None] * len(several), None
        lengths = torch.linspace(0.1, 3.0, len(several), dtype=torch.float64)
        for step in range(steps):
            ratio = torch.tensor(several, dtype=torch.float64) * (1 + step)
            scales, together = policy.scale(ratio, lengths, policy.target_at(step), together)
            for place, value in enumerate(ratio.tolist()):
                one, alone[place] = scale_of(policy, value, alone[place], length=lengths[place].item(), step=step)
                assert one == scales[place]


@pytest.mark.parametrize("policy", [Cap, Pin])
@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, True, "1", None])
def test_targets_are_checked_at_construction(policy, target):
    with pytest.raises(ValueError, match="positive number"):
        policy(target)


def test_scheduled_targets_are_checked_at_their_step():
    with pytest.raises(ValueError, match=r"target\(4\) = -1"):
        scale_of(Cap(lambda step: -1), 1.0, step=4)
    assert Cap(lambda step: np.float32(0.5)).target_at(0) == 0.5


def test_pin_refuses_infinity_and_watch_what_is_no_policy():
    with pytest.raises(ValueError, match="finite target"):
        Pin(math.inf)
    with pytest.raises(ValueError, match="finite target"):
        Pin(lambda step: math.inf).target_at(0)
    with pytest.raises(ValueError, match="expected a policy"):
        Watch(1.0)
