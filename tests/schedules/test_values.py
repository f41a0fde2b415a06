"""The factors: the equations, numbers against tensors, what is no step, and what it costs."""

from __future__ import annotations

import math
from fractions import Fraction
from timeit import repeat

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safestep.errors import SafestepError
from safestep.schedules import (
    Constant,
    Cosine,
    DecayAtEnd,
    Exponential,
    Inverse,
    PiecewiseConstant,
    Polynomial,
    ScheduleError,
    Staircase,
    WarmUp,
)
from schedules.examples import EVERY, every_decay, every_schedule

steps = st.integers(0, 10**6)
any_schedule = st.sampled_from(EVERY)

PUBLISHED = {
    Constant(0.3): lambda t: 0.3,
    Inverse(0.1): lambda t: 1 / (1 + 0.1 * t),
    Polynomial(0.1, alpha=0.5): lambda t: (1 + 0.1 * t) ** -0.5,
    Polynomial(0.2, alpha=3): lambda t: (1 + 0.2 * t) ** -3,
    Exponential(0.1): lambda t: math.exp(-0.1 * t),
    Exponential.of_base(0.9): lambda t: 0.9**t,
    Staircase(30): lambda t: 10.0 ** -math.floor(t / 30),
    PiecewiseConstant((30, 60), (1, 0.1, 0.01)): lambda t: 1.0 if t < 30 else 0.1 if t < 60 else 0.01,
    Cosine(80, floor=0.2): lambda t: 0.2 + 0.8 * (1 + math.cos(math.pi * min(t, 80) / 80)) / 2,
    DecayAtEnd(80, share=0.25): lambda t: 1.0 if t < 60 else max(80 - t, 1) / 20,
    WarmUp(40, start=0.1): lambda t: 0.1 + 0.9 * (t + 1) / 40 if t < 40 else 1.0,
    Inverse(0.1).shifted(2): lambda t: 1 / (1 + 0.1 * (t + 2)),
    WarmUp(40).then(Inverse(0.1)): lambda t: (t + 1) / 40 if t < 40 else 1 / (1 + 0.1 * (t - 40)),
    0.5 * Inverse(0.1) * Exponential(0.1): lambda t: 0.5 / (1 + 0.1 * t) * math.exp(-0.1 * t),
}


@pytest.mark.parametrize(("schedule", "equation"), PUBLISHED.items(), ids=map(repr, PUBLISHED))
def test_a_factor_is_what_its_equation_says(schedule, equation):
    for t in range(100):
        assert schedule(t) == pytest.approx(equation(t), rel=1e-13, abs=1e-16), t


@every_decay
def test_a_decay_begins_at_exactly_one_and_never_rises(schedule):
    factors = [schedule(t) for t in range(30)]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)


def test_a_cosine_that_ends_at_zero_does_so_exactly_and_has_its_digits_before():
    assert Cosine(10**6)(10**6) == 0.0
    assert Cosine(10**6)(10**6 - 1) == pytest.approx((math.pi / 2e6) ** 2, rel=1e-11)  # sin x = x up to x^3/6


@pytest.mark.parametrize("length", [1, 3, 49, 1000])
def test_a_warm_up_takes_its_first_step_and_its_last_warm_one_at_the_full_rate(length):
    assert WarmUp(length)(0) == float(Fraction(1, length))
    assert WarmUp(length)(length - 1) == WarmUp(length)(length) == 1.0


# -- numbers and tensors -----------------------------------------------------------------------------------------------


@given(any_schedule, st.lists(steps, max_size=6))
def test_a_tensor_of_whole_steps_gives_in_double_precision_what_each_number_gives(schedule, ts):
    factors = schedule(torch.tensor(ts, dtype=torch.int64))
    assert factors.dtype is torch.float64
    assert factors.tolist() == pytest.approx([schedule(t) for t in ts], rel=1e-14, abs=1e-300)


@given(any_schedule, st.floats(0, 1e4))
def test_steps_may_be_fractions(schedule, t):
    assert schedule(torch.tensor([t], dtype=torch.float64)).item() == pytest.approx(schedule(t), rel=1e-14, abs=1e-300)


@every_schedule
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 1, 4)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.bfloat16, torch.float32, torch.float64])
def test_a_tensor_keeps_its_shape_and_a_floating_one_its_dtype(schedule, shape, dtype):
    t = torch.arange(math.prod(shape)).reshape(shape).to(dtype)
    factors = schedule(t)
    assert factors.shape == t.shape
    assert factors.dtype is (dtype if dtype.is_floating_point else torch.float64)
    assert torch.equal(factors, schedule(t.double()).to(factors.dtype))


@every_schedule
def test_a_number_gives_a_float_whatever_number_it_is(schedule):
    for t in (7, 7.0, np.int64(7), np.float32(7), Fraction(7)):
        factor = schedule(t)
        assert type(factor) is float
        assert factor == schedule(7)


@every_schedule
def test_the_steps_given_stay_as_they_are(schedule):
    t = torch.arange(20, dtype=torch.float64)
    factors = schedule(t)
    factors += 1.0
    assert torch.equal(t, torch.arange(20, dtype=torch.float64))


@every_schedule
def test_the_default_device_and_dtype_do_not_matter(schedule):
    before, expected = torch.get_default_dtype(), schedule(torch.arange(9))
    torch.set_default_dtype(torch.float16)
    try:
        assert torch.equal(schedule(torch.arange(9)), expected)
    finally:
        torch.set_default_dtype(before)


@every_schedule
def test_far_away_a_factor_is_still_a_finite_number(schedule):
    for t in (1e9, 1e18, 1e300):
        assert 0.0 <= schedule(t) <= 1.0
        assert schedule(torch.tensor([t], dtype=torch.float64)).item() == pytest.approx(
            schedule(t), rel=1e-13, abs=1e-300
        )


# -- what is no step ---------------------------------------------------------------------------------------------------


@every_schedule
@pytest.mark.parametrize(
    "t", [-1, -0.5, 10**400, math.nan, math.inf, -math.inf, True, None, "3", 1j, [1], np.arange(3)]
)
def test_what_is_no_step_is_an_error_that_says_so(schedule, t):
    with pytest.raises(ScheduleError, match="expected a step, a finite number from 0 on, or a tensor"):
        schedule(t)


@every_schedule
@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_a_tensor_with_one_bad_step_is_an_error_that_names_it(schedule, bad):
    with pytest.raises(ScheduleError, match=f"t holds {bad!r}"):
        schedule(torch.tensor([[0.0, 1.0], [bad, 2.0]]))


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64])
def test_a_tensor_of_no_numbers_is_an_error(dtype):
    with pytest.raises(ScheduleError, match=str(dtype)):
        Inverse(0.1)(torch.zeros(2, dtype=dtype))


def test_the_error_is_of_the_family_and_a_value_error():
    assert issubclass(ScheduleError, SafestepError)
    assert issubclass(ScheduleError, ValueError)


# -- cost --------------------------------------------------------------------------------------------------------------


@every_schedule
def test_a_number_costs_microseconds(schedule):
    """A float takes at most 2 of them, a tensor would take 20 and more: the best of 5 tells on a busy machine, too."""
    assert min(repeat(lambda: schedule(17), number=200, repeat=5)) / 200 < 20e-6
