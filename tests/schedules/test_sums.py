"""Infinite sums against 50 digits, rigorous brackets and plain addition; where they diverge; Robbins and Monro."""

from __future__ import annotations

import math

import mpmath as mp
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

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
from schedules.examples import EVERY

betas = st.floats(-6, 6).map(lambda x: 10.0**x)
firsts = st.integers(0, 3) | st.integers(0, 10**6)
SUMMED = [schedule for schedule in EVERY if "Product" not in repr(schedule)]
TINY = 1e-290  # below it a float loses digits


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(50):
        yield


def close(got, wanted, rel=1e-12):
    assert abs(mp.mpf(got) / wanted - 1) < rel, (got, mp.nstr(wanted, 20))


# -- closed forms against many digits ----------------------------------------------------------------------------------


@given(betas, st.floats(1.01, 20), firsts)
def test_a_power_law_sums_to_hurwitz_zeta(beta, s, first):
    with mp.workdps(160):  # mpmath takes zeta(s, n) for zeta(s) less its first terms, and may be left with 1e-120 of it
        wanted = mp.zeta(mp.mpf(s), 1 / mp.mpf(beta) + first) * mp.mpf(beta) ** -mp.mpf(s)
    assume(wanted > TINY)
    close(Inverse(beta).sum(s, first), wanted)
    close(Polynomial(beta, alpha=s).sum(1, first), wanted)
    close(Polynomial(beta, alpha=s / 2).sum(2, first), wanted)


@pytest.mark.parametrize(
    ("beta", "s", "first"),
    [
        (1e-12, 40.0, 0),
        (1e-12, 1e6, 10**8),
        (1e-8, 40.0, 0),  # q^-s of torch.special.zeta underflows from here on
        (1e-8, 1e4, 10**5),
        (1e-5, 7583.4, 0),
        (1e-3, 1e5, 7),
        (0.1, 1e4, 0),
        (0.1, 300.0, 2),
        (1e10, 50.0, 0),
        (1e300, 1e5, 0),
    ],
)
def test_a_power_law_far_from_one_is_within_a_bracket(beta, s, first):
    """1000 terms, and two formulas for the rest between which the sum of a completely monotone function lies."""
    b, e, end = mp.mpf(beta), mp.mpf(s), mp.mpf(first + 1000)
    base = 1 + b * end
    term, slope = base**-e, -e * b * base ** (-e - 1)
    head = mp.fsum((1 + b * (first + k)) ** -e for k in range(1000))
    high = head + base ** (1 - e) / (b * (e - 1)) + term / 2 - slope / 12
    low = high + slope * (e + 1) * (e + 2) * (b / base) ** 2 / 720
    assert high / low - 1 < 1e-13
    close(Inverse(beta).sum(s, first), (low + high) / 2)


@given(st.floats(-12, 3).map(lambda x: 10.0**x), st.floats(0.01, 100), firsts)
def test_an_exponential_sums_geometrically(decay, power, first):
    rate = mp.mpf(decay) * mp.mpf(power)
    wanted = mp.exp(-rate * first) / (1 - mp.exp(-rate))
    assume(wanted > TINY)
    close(Exponential(decay).sum(power, first), wanted)


@given(st.integers(1, 1000), st.floats(1e-6, 0.999999), st.floats(0.01, 100), firsts)
def test_a_staircase_sums_stair_by_stair(every, ratio, power, first):
    step = mp.mpf(ratio) ** mp.mpf(power)
    stair = first // every
    wanted = ((stair + 1) * every - first) * step**stair + every * step ** (stair + 1) / (1 - step)
    assume(wanted > TINY)
    close(Staircase(every, ratio).sum(power, first), wanted)


def test_near_one_a_ratio_loses_no_digits():
    ratio = 1 - 2**-50
    close(Staircase(3, ratio).sum(), mp.mpf(3) * 2**50)
    close(Exponential.of_base(ratio).sum(), mp.mpf(2) ** 50)


@given(st.integers(1, 300), st.floats(0.1, 100), st.integers(0, 310))
def test_a_cosine_sums_its_steps(steps, power, first):
    wanted = mp.fsum(((1 + mp.cos(mp.pi * t / steps)) / 2) ** mp.mpf(power) for t in range(first, steps))
    assume(wanted == 0 or wanted > TINY)
    got = Cosine(steps).sum(power, first)
    assert got == 0.0 if wanted == 0 else abs(got / wanted - 1) < 1e-12


@pytest.mark.parametrize("steps", [1, 10, 3_000_000])
def test_a_long_cosine_is_added_up(steps):
    assert Cosine(steps).sum() == pytest.approx((steps + 1) / 2, rel=1e-14)
    assert Cosine(steps).sum(2) == pytest.approx(3 * steps / 8 + 0.5 if steps > 1 else 1.0, rel=1e-14)


def test_pieces_that_end_at_zero_sum_to_themselves():
    drop = PiecewiseConstant((10**12, 10**13), (1, 0.5, 0))
    assert drop.sum() == 10**12 + 0.5 * 9 * 10**12
    assert drop.sum(2, first=10**12 - 4) == 4 + 0.25 * 9 * 10**12
    assert drop.sum(first=10**13) == 0.0


# -- every schedule ----------------------------------------------------------------------------------------------------


@given(st.sampled_from(SUMMED), st.sampled_from([0.5, 1, 2, 3.5]), st.integers(0, 40))
def test_a_sum_is_its_first_terms_and_the_rest(schedule, power, first):
    whole = schedule.sum(power, first)
    assume(whole < math.inf)
    early = math.fsum(schedule(t) ** power for t in range(first, first + 25))
    assert whole == pytest.approx(early + schedule.sum(power, first + 25), rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("schedule", SUMMED, ids=repr)
def test_a_sum_that_diverges_is_infinite_from_any_step_on(schedule):
    for power in (0.5, 1, 2):
        assert not schedule.converges(power) or schedule.converges(power + 0.5)
        if not schedule.converges(power):
            assert schedule.sum(power, 0) == schedule.sum(power, 1000) == math.inf


@pytest.mark.parametrize("c", [0.3, 2.0])
def test_compositions_sum_as_their_parts(c):
    decay = Inverse(0.1)
    close((c * decay).sum(2, 3), c**2 * decay.sum(2, 3))
    close(decay.shifted(2).sum(2, 3), decay.sum(2, 5))
    close(WarmUp(4).then(decay).sum(2, 0), (1 + 4 + 9 + 16) / 16 + decay.sum(2))
    close(WarmUp(4).then(decay).sum(2, 6), decay.sum(2, 2))
    assert (0 * decay).sum() == 0.0


def test_a_product_has_no_closed_form():
    for product in (
        Inverse(0.1) * Inverse(0.2),
        (Inverse(0.1) * WarmUp(9)).shifted(2),
        0.5 * Inverse(1) * Inverse(1),
        WarmUp(5).then(Inverse(1) * Inverse(1)),
    ):
        for power in (1, 2):
            with pytest.raises(ScheduleError, match=r"no closed form .* schedule\(torch.arange\(steps\)\).sum\(\)"):
                product.sum(power)
        with pytest.raises(ScheduleError, match="no closed form"):
            assert product.robbins_monro


@pytest.mark.parametrize(
    ("schedule", "power"),
    [
        (Inverse(1e-305), 1.0001),
        (Inverse(5e-324), 2),
        (Exponential(5e-324), 1),
        (Exponential(1e-300), 1e-300),
        (PiecewiseConstant((3,), (1e200, 0)), 2),
        (1e200 * Cosine(9), 2),
        (PiecewiseConstant((3,), (1e200, 0)).then(Inverse(1)), 2),
    ],
    ids=repr,
)
def test_a_sum_beyond_floats_is_an_error_and_no_divergence(schedule, power):
    assert schedule.converges(power)
    with pytest.raises(ScheduleError, match="is finite, but beyond the range of floats"):
        schedule.sum(power)


@pytest.mark.parametrize(
    "schedule", [Inverse(0.1), Polynomial(1e200, 1e200), Exponential(1e300), Staircase(2)], ids=repr
)
def test_of_a_huge_power_only_the_factor_one_remains(schedule):
    ones = 2.0 if schedule == Staircase(2) else 1.0
    assert schedule.sum(1e300) == ones
    assert schedule.sum(1e300, first=2) == 0.0


@pytest.mark.parametrize("power", [0, -1, math.nan, math.inf, True, "2"])
def test_a_power_outside_its_range_is_an_error(power):
    with pytest.raises(ScheduleError, match="power = "):
        Inverse(0.1).sum(power)
    with pytest.raises(ScheduleError, match="power = "):
        Inverse(0.1).converges(power)


@pytest.mark.parametrize("first", [-1, 1.5, None])
def test_a_first_step_that_is_none_is_an_error(first):
    with pytest.raises(ScheduleError, match="first = "):
        Inverse(0.1).sum(2, first)


# -- Robbins and Monro -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "rates", "squares"),
    [
        (Constant(), False, False),
        (Constant(0), True, True),
        (Inverse(0.1), False, True),
        (Polynomial(0.1, alpha=0.25), False, False),
        (Polynomial(0.1, alpha=0.5), False, False),  # the published one, on the edge
        (Polynomial(0.1, alpha=0.501), False, True),
        (Polynomial(0.1, alpha=1.0), False, True),
        (Polynomial(0.1, alpha=1.001), True, True),
        (Exponential(1e-9), True, True),
        (Staircase(10**6, ratio=0.999), True, True),
        (PiecewiseConstant((30,), (1, 0.1)), False, False),
        (PiecewiseConstant((30,), (1, 0)), True, True),
        (Cosine(9), True, True),
        (Cosine(9, floor=0.01), False, False),
        (DecayAtEnd(9), False, False),
        (WarmUp(9), False, False),
        (WarmUp(9).then(Inverse(0.1)), False, True),
        (0.5 * Inverse(0.1).shifted(2), False, True),
        (0 * Inverse(0.1), True, True),
        (Inverse(0.1).then(Cosine(9), after=5), True, True),
    ],
    ids=repr,
)
def test_where_the_sums_converge(schedule, rates, squares):
    assert schedule.converges(1) is rates
    assert schedule.converges(2) is squares
    assert schedule.robbins_monro is (squares and not rates)


def test_what_diverges_or_converges_does_so_in_numbers():
    """From 2^20 to 2^21 steps: a series whose terms are t^-a grows by a share that is fixed or vanishing."""
    t = torch.arange(2**20, 2**21)
    edge = Polynomial(0.1)
    assert float(edge(t).pow(2).sum()) == pytest.approx(10 * math.log(2), rel=1e-4)
    assert float(Inverse(0.1)(t).pow(2).sum()) < 1e-4
    assert float(Inverse(0.1)(t).sum()) == pytest.approx(10 * math.log(2), rel=1e-4)
