"""A decay at the end: its line, its sum, what comes after it, and how a policy, a guard and an ensemble follow it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import safestep
from safestep import Cap, Pin, SoftmaxRadius, Throttle, Watch
from safestep.descent.rows import RowGuard
from safestep.schedules import Constant, Cosine, DecayAtEnd, Inverse, WarmUp
from zoo import said
from zoo.loop import Loop

totals, shares = st.integers(1, 2000), st.floats(1e-3, 1.0)


# -- the factors -------------------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.integers(0, 300))
def test_its_factors_add_up_to_their_closed_form(decaying, constant):
    """A whole number D of steps that decay: D/D, (D - 1)/D, ..., 1/D, after ones."""
    total = decaying + constant
    factors = [DecayAtEnd(total, share=decaying / total)(t) for t in range(total)]
    assert math.fsum(factors) == pytest.approx(total - (decaying - 1) / 2, rel=1e-12)
    assert factors[:constant] == [1.0] * constant
    assert factors[constant:] == pytest.approx([left / decaying for left in range(decaying, 0, -1)], rel=1e-12)


@given(totals, shares)
def test_it_stays_between_0_and_1_and_never_rises(total, share):
    factors = DecayAtEnd(total, share)(torch.arange(2 * total + 2))
    assert (factors > 0.0).all()
    assert (factors <= 1.0).all()
    assert (factors.diff() <= 0.0).all()
    assert factors[0] == 1.0


@given(totals, shares)
def test_where_it_goes_down_it_does_so_by_the_same_each_step(total, share):
    factors = DecayAtEnd(total, share)(torch.arange(total))
    line = factors[factors < 1.0]
    assert torch.allclose(line.diff(), torch.full_like(line.diff(), -1 / (share * total)), rtol=0, atol=1e-12)
    assert len(line) == pytest.approx(share * total, abs=1.0)  # the step at the top of the line has the factor 1


@given(totals, shares, st.integers(0, 10**6))
def test_after_the_end_it_keeps_the_factor_of_the_last_step(total, share, later):
    schedule = DecayAtEnd(total, share)
    assert schedule(total + later) == schedule(total - 1) > 0.0
    assert schedule(total - 1) == min(1.0, 1 / (share * total))


def test_ten_thousand_steps():
    schedule = DecayAtEnd(total=10_000)
    assert [schedule(t) for t in (0, 7_000, 8_500, 9_999)] == [1.0, 1.0, 0.5, 1 / 3_000]
    assert float(schedule(torch.arange(10_000)).sum()) == pytest.approx(8_500.5, rel=1e-12)


def test_a_run_of_too_few_steps_for_its_share_does_not_decay():
    assert [DecayAtEnd(3)(t) for t in range(5)] == [1.0] * 5


# -- where it ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "end"),
    [
        (DecayAtEnd(10), 10),
        (DecayAtEnd(10).shifted(3), 7),
        (0.2 * DecayAtEnd(10), 10),
        (WarmUp(5).then(DecayAtEnd(10)), 15),
        (DecayAtEnd(10).then(Constant(), after=12), None),  # over for two steps, and then another run
        (WarmUp(5) * DecayAtEnd(10), 10),
        (DecayAtEnd(10) * Inverse(0.1), 10),  # a product without an end of its own
        (Cosine(10, floor=0.1), None),
        (WarmUp(10), None),
    ],
    ids=repr,
)
def test_a_schedule_says_from_which_step_on_the_run_is_over(schedule, end):
    assert schedule.over(100) == (end is not None)
    if end is not None:
        assert [schedule.over(t) for t in (0, end - 1, end)] == [False, False, True]


def test_what_follows_a_decay_that_was_cut_off_is_not_over():
    restarted = DecayAtEnd(10).then(Constant(), after=12)
    assert [restarted.over(t) for t in (9, 10, 11, 12)] == [False, True, True, False]


# -- in a policy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Cap, Pin])
def test_a_schedule_multiplies_the_target(kind):
    schedule = DecayAtEnd(8, share=0.5)
    for policy in (kind(0.4, schedule=schedule), Watch(kind(0.4, schedule=schedule))):
        assert [policy.target_at(t) for t in range(8)] == [0.4 * schedule(t) for t in range(8)]
    moving = kind(lambda step: 1.0 + step, schedule=lambda step: 1 / (2 + step))
    assert moving.target_at(2) == 3 / 4


@pytest.mark.parametrize("kind", [Cap, Pin])
def test_a_policy_with_a_decay_is_a_value(kind):
    policy = kind(0.4, schedule=DecayAtEnd(8))
    assert policy == kind(0.4, schedule=DecayAtEnd(8)) != kind(0.4)
    assert hash(policy) == hash(kind(0.4, schedule=DecayAtEnd(8)))
    assert repr(policy) == f"{kind.__name__}(target=0.4, schedule=DecayAtEnd(total=8, share=0.3))"


def test_no_limit_stays_none():
    assert Cap(math.inf, schedule=DecayAtEnd(8)).target_at(7) == math.inf


@pytest.mark.parametrize("kind", [Cap, Pin])
@pytest.mark.parametrize("schedule", [0.5, "linear", (1, 2)])
def test_a_schedule_that_is_no_function_is_refused(kind, schedule):
    with pytest.raises(ValueError, match=r"schedule = .*: expected a function from the step to a factor, such as"):
        kind(schedule=schedule)


@pytest.mark.parametrize("kind", [Cap, Pin])
@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, True, "1", None])
def test_a_factor_that_is_none_is_told_at_its_step(kind, factor):
    with pytest.raises(ValueError, match=r"schedule\(4\) = .*: expected a positive number, since a step of target 0"):
        kind(schedule=lambda step: factor).target_at(4)


def test_pin_refuses_a_factor_that_makes_the_target_infinite():
    with pytest.raises(ValueError, match="finite target"):
        Pin(schedule=lambda step: math.inf).target_at(0)


def test_the_rows_of_an_ensemble_follow_the_decay():
    """On f = x^2/2 along the gradient r = rate/2: a pin of it sets the rate to 2 target, in every row."""
    schedule = DecayAtEnd(6, share=0.5)
    rows = RowGuard(Pin(0.25, schedule=schedule), 3)
    x = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    for step in range(6):
        p = -1.7 * x
        later = rows.settle(x, x + p, (p * x).sum(-1), p.square().sum(-1), step)
        assert torch.allclose(later, (1 - 0.5 * schedule(step)) * x)
        x = later


# -- under a guard -----------------------------------------------------------------------------------------------------

RADII = {"exact": SoftmaxRadius(method="exact"), "tiered": SoftmaxRadius(), "never": SoftmaxRadius(sync="never")}


@pytest.mark.parametrize("radius", RADII.values(), ids=RADII)
@pytest.mark.parametrize("policy", [Cap, Pin])
def test_the_records_of_a_guard_follow_the_decay(policy, radius):
    schedule = DecayAtEnd(8, share=0.5)
    loop = Loop(policy=policy(0.05, schedule=schedule), radius=radius, lr=10.0).steps(8)
    wanted = [0.05 * schedule(t) for t in range(8)]
    assert [report.target for report in loop.reports] == wanted
    if radius is RADII["exact"]:
        assert [report.applied_ratio for report in loop.reports] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
    "policy",
    [Pin(0.05, schedule=DecayAtEnd(4)), Cap(0.05 * DecayAtEnd(4)), Cap(0.05, schedule=WarmUp(2) * DecayAtEnd(4))],
    ids=repr,
)
@pytest.mark.parametrize("watch", [False, True])
def test_a_run_beyond_its_end_is_told_once_and_goes_on(policy, watch):
    loop = Loop(policy=Watch(policy) if watch else policy, lr=10.0).steps(4)
    with said("step 4 comes after the end of the run that this guard was told: the target stays at"):
        loop.step()
    loop.steps(3)  # a second warning would be an error
    assert len({report.target for report in loop.reports[3:]}) == 1
    assert all(report.target > 0.0 for report in loop.reports)


def test_a_throttle_aims_where_it_is_told():
    """What a guard multiplies is the target, and every law follows it; of orders 1 and 2 k (chi - alpha m) from 0."""
    ratio, length = torch.tensor(4.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    for order, wanted in ((0, 0.5 * 0.75 / 4.0), (1, 0.1 * 0.75), (2, 0.1 * 0.75)):
        scale, _ = Throttle(order=order).scale(ratio, length, 0.5 * 0.75, None)
        assert scale.item() == pytest.approx(wanted)
    grains = Throttle(quantum=0.15)
    assert not grains.says(4.0, 1.0, 0.75)  # 0.1875 of a step of length 1
    assert "shorter than the quantum" in grains.says(4.0, 1.0, 0.375)


def test_the_package_names_it():
    assert safestep.Pin(schedule=safestep.schedules.DecayAtEnd(total=10_000)).target_at(9_999) == 1 / 3_000
