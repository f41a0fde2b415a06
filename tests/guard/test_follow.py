"""The target follows the schedule of rates: by how much, through warm-ups and accidents, and where it does not."""

from __future__ import annotations

import base64
import gc
import io
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR, LinearLR, OneCycleLR

from safestep import (
    Averaged,
    Cap,
    CurvatureRadius,
    Pin,
    Policy,
    SoftmaxRadius,
    Throttle,
    Tightest,
    Watch,
    attach,
    default_limit,
)
from safestep.guard.rate_peaks import RatePeaks
from safestep.schedules import Cosine, DecayAtEnd, WarmUp
from zoo.asserts import assert_identical, assert_same_reports
from zoo.checkpoints import Journey, saved
from zoo.loop import Loop, network

rates = st.floats(1e-6, 1e3)


def factors(course):
    """Return the factor of every step of a run at these rates, of one group."""
    peaks, found = RatePeaks(), []
    for rate in course:
        peaks = peaks.after({"0/0": rate})
        found.append(peaks.factor({"0/0": rate}))
    return found


# -- the factors -------------------------------------------------------------------------------------------------------


@given(rates, st.integers(1, 40), st.integers(2, 200))
def test_after_a_warm_up_it_is_the_root_of_twice_the_rate_over_its_peak(peak, warm, steps):
    course = [peak * (WarmUp(warm) * Cosine(warm + steps))(step) for step in range(warm + steps)]
    highest = max(course)
    wanted = [min(1.0, math.sqrt(2.0 * rate / highest)) for rate in course[course.index(highest) :]]
    assert factors(course)[course.index(highest) :] == pytest.approx([max(0.01, one) for one in wanted], rel=1e-12)
    assert set(factors(course)[: course.index(highest)]) <= {1.0}


@given(st.lists(rates, min_size=1, max_size=60))
def test_it_is_a_share_and_1_where_the_rate_is_at_its_highest(course):
    found = factors(course)
    assert all(0.01 <= factor <= 1.0 for factor in found)
    assert found[0] == 1.0
    assert all(found[step] == 1.0 for step, rate in enumerate(course) if rate == max(course[: step + 1]))


@given(st.lists(rates, min_size=1, max_size=60), st.integers(-20, 20))
def test_it_knows_no_unit_of_rates(course, power):
    assert factors([math.ldexp(rate, power) for rate in course]) == factors(course)


@given(st.lists(rates, min_size=1, max_size=30), st.lists(rates, min_size=1, max_size=30))
def test_higher_rates_before_never_make_it_larger(before, after):
    higher = [2.0 * rate for rate in before]
    assume(all(one != other for course in ([*before, *after], [*higher, *after]) for one, other in pairwise(course)))
    low, high = factors([*before, *after]), factors([*higher, *after])
    assert all(one >= other for one, other in zip(low[len(before) :], high[len(before) :], strict=True))


@given(rates, st.floats(1.0, 1e9), st.integers(10, 400), st.data())
def test_an_accident_that_is_short_for_its_time_leaves_nothing_behind(rate, times, before, data):
    """While ``((t + k) / t)^2 <= 2`` after ``k`` steps of it, at whatever rate."""
    wrong = data.draw(st.integers(0, int(before * (math.sqrt(2.0) - 1.0))))
    assert factors([*[rate] * before, *[rate * times] * wrong, rate])[-1] == 1.0


def test_a_long_one_is_taken_for_a_schedule():
    assert factors([*[1.0] * 10, *[100.0] * 1000, 1.0])[-1] == pytest.approx(math.sqrt(0.02))


@given(st.integers(0, 10), st.integers(10, 300), st.integers(1, 300))
def test_a_warm_up_counts_from_however_little(decades, warm, steps):
    """As of `LinearLR`, which starts at no rate of 0."""
    course = [max(10.0**-decades, min(1.0, step / warm)) for step in range(warm + 1)]
    course += [1.0 - 0.9 * step / steps for step in range(1, steps + 1)]
    assert factors(course)[-1] == pytest.approx(math.sqrt(0.2))


def test_a_warm_up_by_epochs_counts_before_long():
    """As timm's: a rate for a whole epoch, the first of them next to nothing."""
    course = [rate for rate in (1e-6, 0.2, 0.4, 0.6, 0.8) for _ in range(100)]
    course += [0.5 + 0.5 * math.cos(math.pi * epoch / 30) for epoch in range(30) for _ in range(100)]
    wanted = [min(1.0, math.sqrt(2.0 * rate)) for rate in course[2500:]]
    assert factors(course)[2500:] == pytest.approx(wanted, rel=0.1)


def test_a_rate_that_stays_is_its_own_peak():
    """A first step at the rate of the constructor, or a search for a rate, is forgotten."""
    assert factors([1e-2, 1e-4, 1e-4, 1e-4, 1e-4])[-1] == 1.0
    search = [1e-4 * 1.1**step for step in range(100)]
    assert factors([*search, *[1e-3] * 100])[-1] < 0.8
    assert factors([*search, *[1e-3] * 201])[-1] == 1.0
    stairs = factors([rate for rate in (1.0, 0.1, 0.01) for _ in range(30)])
    assert stairs[30:60] == pytest.approx([math.sqrt(0.2)] * 30)
    assert stairs[60:] == pytest.approx([math.sqrt(0.02)] * 30)


def test_after_a_restart_all_of_the_target_is_back():
    assert factors([1.0, 0.5, 0.1, 0.01, 1.0, 0.5, 0.125]) == pytest.approx([1, 1, 0.2**0.5, 0.02**0.5, 1, 1, 0.5])


@pytest.mark.parametrize(
    ("course", "factor"),
    [
        ([(1.0, 8.0), (0.1, 4.0)], 1.0),  # of two groups the one that came down least
        ([(1.0, 8.0), (0.125, 0.5)], 0.5),
        ([(0.0, 8.0), (0.0, 1.0)], 0.5),  # one that is frozen does not count
        ([(0.0, 8.0), (4.0, 8.0), (1.0, 1.0)], 0.5**0.5),  # until it is not
        ([(math.nan, 8.0), (math.nan, 1.0)], 0.5),  # nor one without a rate
        ([(8.0,), (1.0, 1.0)], 0.5),  # one that joins is as far down as the others
        ([(8.0, 0.0), (1.0, 1.0)], 0.5),
        ([(8.0, 0.0), (4.0, 1.0), (1.0, 1.0)], 1.0),
        ([(8.0, 8.0), (1.0,)], 0.5),
        ([(), ()], 1.0),
        ([(-1.0,), (-0.1,)], 1.0),
        ([(0.0,), (0.0,)], 1.0),
    ],
)
def test_of_several_groups(course, factor):
    peaks = RatePeaks()
    for step in course:
        rates = {str(index): rate for index, rate in enumerate(step)}
        peaks = peaks.after(rates)
    assert peaks.factor(rates) == pytest.approx(factor)


def test_a_group_that_begins_late_has_its_own_warm_up_and_stops_nobody():
    peaks, found = RatePeaks(), []
    for step in range(3000):
        rate = 0.5 + 0.5 * math.cos(math.pi * step / 3000)
        both = {"0/0": rate, "0/1": 0.0 if step < 1000 else rate * min(1.0, (step - 999) / 100)}
        peaks = peaks.after(both)
        found.append((peaks.factor(both), min(1.0, max(0.01, math.sqrt(2.0 * rate)))))
    assert all(alone - 1e-9 < factor < 1.2 * alone for factor, alone in found)


def test_steps_before_the_first_rate_do_not_count():
    assert RatePeaks().after({"0/0": 0.0}).after({"0/0": 0.0}) == RatePeaks()


@pytest.mark.parametrize("damaged", [(-1, 1.0, 1.0, 1), (1, math.nan, 1.0, 1), (1, 1.0, -1.0, 1), (1, 1.0, 1.0, -1)])
def test_what_cannot_have_been_counted_is_refused(damaged):
    with pytest.raises(ValueError, match="expected"):
        RatePeaks.of({"0/0": damaged})


# -- under a guard -----------------------------------------------------------------------------------------------------

SCHEDULES = {
    "cosine": lambda one: LambdaLR(one, WarmUp(3) * Cosine(12)),
    "linear, as transformers": lambda one: LambdaLR(one, lambda step: min(step / 3, (12 - step) / 9)),
    "restarts": lambda one: CosineAnnealingWarmRestarts(one, 5),
    "one cycle": lambda one: OneCycleLR(one, 100.0, total_steps=12, cycle_momentum=False),
    "an end": lambda one: LinearLR(one, 1.0, 0.01, 11),
}
POLICIES = [Cap(0.1), Pin(0.1), Watch(Cap(0.1))]


def scheduled(schedule="cosine", steps=12, **options):
    """Train at a rate that is far too large, on a schedule; return the loop and the rate of every step."""
    loop, course = Loop(lr=100.0, **options), []
    scheduler = SCHEDULES[schedule](loop.optimizer)
    for _ in range(steps):
        course.append(loop.optimizer.param_groups[0]["lr"])
        loop.step()
        scheduler.step()
    return loop, course


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_target_of_every_step_follows_and_is_kept(schedule, policy):
    loop, course = scheduled(schedule, policy=policy)
    moved = [rate for rate in course if rate > 0.0]
    targets = [report.target for report in loop.reports if report.status != "still"]
    assert targets == pytest.approx([0.1 * factor for factor in factors(moved)], rel=1e-12)
    assert min(targets) < 0.1 * 0.5
    if policy.writes:
        scaled = [report for report in loop.reports if report.scale not in {0.0, 1.0}]
        assert len(scaled) > 3
        assert all(report.applied_ratio == pytest.approx(report.target) for report in scaled)


class Half(Policy):
    """A policy whose target follows a schedule of its own."""

    def target_at(self, step):
        return 1.0

    def scale(self, ratio, length, target, state):
        return torch.full_like(ratio, 0.5), state


FIXED = {
    "softmax": {"radius": SoftmaxRadius()},
    "curvature": {"radius": CurvatureRadius()},
    "asked not to": {"radius": default_limit(follow_schedule=False)},
    "a policy of one's own": {"policy": Half()},
    "a throttle": {"policy": Throttle(chi=2.0 / 3.0), "radius": default_limit()},
    "a pin's schedule": {"policy": Pin(1.0, schedule=lambda step: 1.0)},
    "a target that is a function": {"policy": Cap(lambda step: 1.0)},
    "a watched schedule": {"policy": Watch(Cap(1.0, schedule=lambda step: 1.0))},
}


@pytest.mark.parametrize("options", FIXED.values(), ids=FIXED)
def test_no_other_radius_follows_and_none_where_the_policy_has_a_schedule(options):
    loop, _ = scheduled(**options)
    (target,) = {report.target for report in loop.reports if report.status != "still"}
    assert target == loop.guard.policy.target_at(0)


def test_averages_do_what_a_schedule_does():
    net = network()
    assert attach(net, Averaged(torch.optim.SGD(net.parameters(), lr=0.1))).radius == default_limit(
        follow_schedule=False
    )
    assert str(default_limit(follow_schedule=False)) == "default_limit(follow_schedule=False)"


def test_a_decay_of_the_policys_own_is_taken_at_its_word():
    loop, _ = scheduled(policy=Cap(0.1, schedule=DecayAtEnd(12, 0.5)))
    wanted = [0.1] * 7 + [0.1 * left / 6 for left in (5, 4, 3, 2, 1)]
    assert [report.target for report in loop.reports] == pytest.approx(wanted)


def test_a_wind_down_goes_on_top():
    loop = Loop(lr=100.0, policy=Cap(0.1))
    loop.steps(3)
    loop.guard.wind_down(4)
    for rate in (100.0, 12.5, 12.5, 12.5):
        loop.step(lr=rate)
    targets = [report.target for report in loop.reports[3:]]
    assert targets == pytest.approx([0.1, 0.1 * 0.75 * 0.5, 0.1 * 0.5 * 0.5, 0.1 * 0.25 * 0.5])


def test_a_step_that_goes_nowhere_or_is_undone_does_not_count():
    loop = Loop(lr=1.0)
    loop.steps(2)
    before = loop.guard.state_dict()["memory"]
    loop.step(lr=0.0)
    loop.backward()
    next(loop.model.parameters()).grad[0] = math.nan
    loop.optimizer.param_groups[0]["lr"] = 1e9
    loop.optimizer.step()
    assert [report.status for report in loop.reports[2:]] == ["still", "undone"]
    peaks = [memory_of({"memory": memory})["peaks"] for memory in (before, loop.guard.state_dict()["memory"])]
    assert peaks == [{"0/0": (2, 1.0, 1.0, 2)}] * 2


def memory_of(state):
    return torch.load(io.BytesIO(base64.b64decode(state["memory"])), weights_only=True)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_run_stopped_on_its_way_down_and_resumed_is_the_run_that_was_not(policy):
    whole = Journey(policy=policy, sgd=True).steps(9)
    file, taken = whole.saved(), len(whole.reports)
    whole.steps(3)
    resumed = Journey(seed=1, policy=policy, sgd=True).load(file).steps(3)
    assert_identical(resumed.everything(), whole.everything())
    assert_same_reports(resumed.reports, whole.reports[taken:])
    assert memory_of(whole.guard.state_dict())["peaks"]["0/0"][0] == 11


def test_a_state_that_knows_of_no_peaks_is_read_and_the_next_rate_is_the_peak():
    loop, _ = scheduled(policy=Cap(0.1), steps=9)
    state = loop.guard.state_dict()
    memory = memory_of(state)
    del memory["peaks"]
    loop.guard.load_state_dict({**state, "memory": base64.b64encode(saved(memory)).decode()})
    loop.step()
    assert loop.guard.last.target == 0.1


@pytest.mark.parametrize(
    "peaks", [7, {"0/0": 7}, {"0/0": (1, 2.0)}, {"0/0": (1, -1.0, 1.0, 1)}, {"0/0": ("1", 1.0, 1.0, 1)}]
)
def test_peaks_that_are_none_are_told_of_the_checkpoint(peaks):
    guard = Journey().guard
    state = guard.state_dict()
    damaged = base64.b64encode(saved({**memory_of(state), "peaks": peaks})).decode()
    with pytest.raises(ValueError, match="what the guard remembered cannot be read"):
        guard.load_state_dict({**state, "memory": damaged})
    assert guard.state_dict() == state


# -- several groups, several optimizers --------------------------------------------------------------------------------


def two(*rates):
    """Return a network and an optimizer for each of its two layers."""
    net = network()
    return net, [torch.optim.SGD(net[layer].parameters(), lr=rate) for layer, rate in zip((0, 2), rates, strict=True)]


def backward(net):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    torch.nn.functional.cross_entropy(net(x), torch.arange(8) % 3).backward()


def step(net, *optimizers, at):
    """Take a step by some optimizers at rates of theirs; all gradients are there."""
    backward(net)
    for one, rate in zip(optimizers, at, strict=True):
        one.param_groups[0]["lr"] = rate
        one.step()
    net.zero_grad()


def test_of_two_optimizers_the_one_that_came_down_least_counts():
    net, (first, second) = two(1.0, 0.01)
    guard = attach(net, [first, second], policy=Watch(Cap(1.0)))
    for at in ((1.0, 0.01), (1.0, 0.01), (0.1, 0.01), (0.1, 0.001)):
        step(net, first, second, at=at)
    assert [report.target for report in guard.history] == pytest.approx([1.0, 1.0, 1.0, math.sqrt(0.2)])


def test_in_turns_those_that_stepped_count():
    net, (first, second) = two(1.0, 0.01)
    guard = attach(net, [first, second], policy=Watch(Cap(1.0)))
    step(net, first, second, at=(1.0, 0.01))
    for rate in (0.1, 0.01):
        step(net, first, at=(rate,))
    guard.detach()
    assert [report.target for report in guard.history] == pytest.approx([1.0, math.sqrt(0.2), math.sqrt(0.02)])


def test_an_optimizer_that_is_gone_leaves_the_others_their_peaks():
    net, optimizers = two(1.0, 0.01)
    guard = attach(net, optimizers, policy=Watch(Cap(1.0)))
    step(net, *optimizers, at=(1.0, 0.01))
    del optimizers[0]
    gc.collect()
    step(net, *optimizers, at=(0.01,))
    guard.detach()
    assert [report.target for report in guard.history] == [1.0, 1.0]


def test_groups_that_are_added_shift_no_other():
    net, (first, second) = two(1.0, 0.01)
    first.param_groups[0]["params"] = [net[0].weight]
    guard = attach(net, [first, second], policy=Watch(Cap(1.0)))
    for at in ((1.0, 0.01), (1.0, 0.01), (0.1, 0.001)):
        step(net, first, second, at=at)
    first.add_param_group({"params": [net[0].bias], "lr": 0.1})
    step(net, first, second, at=(0.1, 0.001))
    assert [report.target for report in guard.history] == pytest.approx([1.0, 1.0, math.sqrt(0.2), math.sqrt(0.2)])


def test_a_group_without_a_gradient_stops_nobody():
    net = network()
    net[2].requires_grad_(False)
    groups = [{"params": net[layer].parameters()} for layer in (0, 2)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    guard = attach(net, optimizer, policy=Watch(Cap(1.0)))
    for rate in (1.0, 0.1):
        step(net, optimizer, at=(rate,))
    assert guard.last.target == pytest.approx(math.sqrt(0.2))


def test_a_limit_of_several_follows_where_one_of_them_does():
    loop, course = scheduled(radius=Tightest({default_limit(): 1.0, SoftmaxRadius(): 9.0}))
    assert [report.target for report in loop.reports] == pytest.approx(factors(course))
