"""The wind-down: a run whose length was not known ends on a line to 0, resumed or not, and what it refuses."""

from __future__ import annotations

import base64
import io
import math
import warnings
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safestep import Cap, CurvatureRadius, Pin, Policy, SafestepWarning, SoftmaxRadius, Throttle, Watch
from safestep.errors import ScheduleError
from safestep.guard.wind_down import WindDown
from safestep.schedules import DecayAtEnd, WarmUp
from zoo import said
from zoo.asserts import assert_identical, assert_same_reports
from zoo.checkpoints import Journey, loaded, saved
from zoo.loop import Loop

RADII = {"exact": SoftmaxRadius(method="exact"), "tiered": SoftmaxRadius(), "never": SoftmaxRadius(sync="never")}
every_radius = pytest.mark.parametrize("radius", RADII.values(), ids=RADII)


def wound(loop, before, steps, after=0):
    """Train, decide to stop, and train on."""
    loop.steps(before)
    loop.guard.wind_down(steps)
    return loop.steps(steps + after)


# -- the factors -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 500), st.integers(1, 500))
def test_a_wind_down_is_the_decay_of_a_run_that_had_known_its_length(start, steps):
    end, known = WindDown(start, steps), DecayAtEnd(start + steps, share=steps / (start + steps))
    for step in range(start + steps + 3):
        assert end.factor(step) == pytest.approx(known(step), rel=1e-12)
        assert end.over(step) == known.over(step)


@given(st.integers(0, 10**9), st.integers(1, 500))
def test_its_factors_fall_from_1_and_add_up_to_their_closed_form(start, steps):
    factors = [WindDown(start, steps).factor(start + k) for k in range(steps)]
    assert factors[0] == 1.0
    assert factors[-1] == 1 / steps
    assert all(0.0 < later < earlier for earlier, later in pairwise(factors))
    assert math.fsum(factors) == pytest.approx((steps + 1) / 2)


# -- under a guard -----------------------------------------------------------------------------------------------------


@every_radius
@pytest.mark.parametrize("policy", [Pin(0.05), Cap(0.05), Watch(Cap(0.05)), Cap(0.05 * WarmUp(9))], ids=repr)
def test_the_target_goes_down_from_the_step_after_the_decision(policy, radius):
    loop = wound(Loop(policy=policy, radius=radius, lr=10.0), 3, 4)
    wanted = [policy.target_at(step) * min(1.0, (7 - step) / 4) for step in range(7)]
    assert [report.target for report in loop.reports] == pytest.approx(wanted, rel=1e-15)
    if radius is RADII["exact"] and policy.writes:
        assert [report.applied_ratio for report in loop.reports] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_throttle_winds_down_too(order):
    loop = wound(Loop(policy=Throttle(order=order), radius=CurvatureRadius(), lr=50.0), 3, 4)
    assert [report.target for report in loop.reports] == [0.75, 0.75, 0.75, 0.75, 0.5625, 0.375, 0.1875]
    if order == 0:
        scaled = [report.applied_ratio for report in loop.reports if report.scale < 1.0]
        assert len(scaled) > 4
        assert scaled == pytest.approx([report.target for report in loop.reports if report.scale < 1.0], rel=1e-6)


def test_it_begins_with_the_whole_run_where_no_step_was_taken():
    loop = wound(Loop(policy=Pin(0.05), lr=10.0), 0, 5)
    assert [report.target for report in loop.reports] == pytest.approx([0.05 * left / 5 for left in (5, 4, 3, 2, 1)])


def test_a_schedule_of_the_policy_is_followed_beside_it():
    loop = wound(Loop(policy=Pin(0.05, schedule=lambda step: 1 / (1 + step)), lr=10.0), 2, 2)
    assert [report.target for report in loop.reports] == pytest.approx([0.05, 0.05 / 2, 0.05 / 3, 0.05 / 8])


@every_radius
def test_beyond_its_end_the_target_is_held_and_said_once(radius):
    loop = wound(Loop(policy=Pin(0.04), radius=radius, lr=10.0), 2, 4)
    with said("step 6 comes after the end of the run .* the target stays at 0.01, that of the last step"):
        loop.step()
    assert [report.target for report in loop.steps(3).reports[5:]] == [0.01] * 5


def test_a_caller_who_makes_errors_of_warnings_gets_one_and_may_go_on():
    loop = wound(Loop(policy=Pin(0.04), lr=10.0), 1, 2)
    loop.backward()
    before = loop.parameters()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SafestepWarning, match="comes after the end"):
            loop.optimizer.step()
    assert_identical(loop.parameters(), before)  # put back, as every step that could not be decided
    assert loop.step() is None


# -- resumed -----------------------------------------------------------------------------------------------------------

OPTIONS = {
    "pin": {"policy": Pin(0.02)},
    "cap": {"policy": Cap(0.02), "radius": SoftmaxRadius(method="exact")},
    "tiered": {"policy": Cap(0.02)},
    "never": {"policy": Cap(0.02), "radius": SoftmaxRadius(sync="never")},
    "watch": {"policy": Watch(Pin(0.02))},
    "throttle": {"policy": Throttle(order=2)},
    "decay": {"policy": Pin(0.02, schedule=DecayAtEnd(9, share=0.6))},  # without a wind-down
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("stop", [2, 3, 5, 9])
def test_a_run_stopped_within_it_and_resumed_is_the_run_that_was_not(options, stop):
    """Decided after 2 steps: stopped at once, after the first step of it, in its middle, before the last.

    Of the 10 steps the scaler skips one, which is none of the guard's 9.
    """
    whole = Journey(**options).steps(2)
    if options is not OPTIONS["decay"]:
        whole.guard.wind_down(7)
    whole.steps(stop - 2)
    file, taken = whole.saved(), len(whole.reports)
    whole.steps(10 - stop)
    resumed = Journey(seed=1, **options).load(file).steps(10 - stop)
    assert_identical(resumed.everything(), whole.everything())
    assert_same_reports(resumed.reports, whole.reports[taken:])
    assert whole.reports[-1].step == 8
    assert whole.reports[-1].target < whole.reports[1].target / 4


def test_a_checkpoint_from_before_goes_on_as_if_it_had_not_been_called():
    """How a run is prolonged: in the same guard, too."""
    policy = {"policy": Pin(0.02)}
    whole = Journey(**policy).steps(6)
    run = Journey(**policy).steps(3)
    file = run.saved()
    run.guard.wind_down(2)
    run.steps(2)
    run.load(file).steps(3)  # of which the scaler skips one
    assert [report.target for report in run.reports] == [0.02] * 4 + [0.01] + [0.02] * 2
    assert_identical(run.everything(), whole.everything())


def test_a_state_that_knows_of_no_wind_down_is_read():
    """Of version 3, as it was saved before there was one."""
    state = Journey().steps(3).guard.state_dict()
    memory = torch.load(io.BytesIO(base64.b64decode(state["memory"])), weights_only=True)
    assert memory.pop("wind_down") is None
    former = {**state, "memory": base64.b64encode(saved(memory)).decode()}
    again = Journey()
    again.guard.wind_down(5)
    again.guard.load_state_dict(former)
    assert again.guard.state_dict() == state


def test_the_keys_of_a_state_are_the_same_with_it_and_without():
    loop = Loop(policy=Pin(0.02))
    before = loop.guard.state_dict()
    loop.guard.wind_down(5)
    after = loop.guard.state_dict()
    assert list(after) == list(before)
    assert {key for key in after if after[key] != before[key]} == {"memory"}
    assert loaded(saved(after)) == after


@pytest.mark.parametrize("end", [{"start": -1, "steps": 3}, {"start": 2, "steps": 0}, {"start": 2}, 7])
def test_a_wind_down_that_is_none_is_told_of_the_checkpoint(end):
    state = Journey().guard.state_dict()
    memory = torch.load(io.BytesIO(base64.b64decode(state["memory"])), weights_only=True)
    damaged = {**state, "memory": base64.b64encode(saved({**memory, "wind_down": end})).decode()}
    guard = Journey().guard
    with pytest.raises(ValueError, match="what the guard remembered cannot be read"):
        guard.load_state_dict(damaged)
    assert guard.state_dict() == state


# -- what it refuses ---------------------------------------------------------------------------------------------------


class Half(Policy):
    """A policy without a target."""

    def scale(self, ratio, length, target, state):
        return torch.full_like(ratio, 0.5), state


@pytest.mark.parametrize(
    "policy", [Watch(), Half(), Cap(math.inf), Watch(Cap(math.inf))], ids=["watch", "half", "cap", "watch-cap"]
)
def test_a_policy_without_a_finite_target_has_nothing_to_wind_down(policy):
    guard = Loop(policy=policy).guard
    with pytest.raises(ScheduleError, match=r"nothing to wind down: .* Expected a policy with a finite target"):
        guard.wind_down(5)


@pytest.mark.parametrize("steps", [0, -3, 2.5, 3.0, True, "3", None])
def test_a_number_of_steps_that_is_none_is_refused_and_changes_nothing(steps):
    loop = Loop(policy=Pin(0.02))
    before = loop.guard.state_dict()
    with pytest.raises(ScheduleError, match=r"steps = .*: expected a whole number, at least 1"):
        loop.guard.wind_down(steps)
    assert loop.guard.state_dict() == before


def test_a_second_one_is_refused_and_the_first_goes_on():
    loop = Loop(policy=Pin(0.02), lr=10.0).steps(2)
    loop.guard.wind_down(4)
    with pytest.raises(ScheduleError, match=r"winds down already, from step 2 on over 4 steps \(a resumed run does so"):
        loop.guard.wind_down(8)
    again = Loop(policy=Pin(0.02), lr=10.0)
    again.guard.load_state_dict(loop.guard.state_dict())
    with pytest.raises(ScheduleError, match="winds down already"):
        again.guard.wind_down(4)
    assert [report.target for report in loop.steps(4).reports[2:]] == [0.02, 0.015, 0.01, 0.005]
