"""What a schedule may be made of, and the messages otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from safestep.schedules import (
    Constant,
    Cosine,
    DecayAtEnd,
    Exponential,
    Inverse,
    PiecewiseConstant,
    Polynomial,
    Product,
    Scaled,
    ScheduleError,
    Shifted,
    Staircase,
    Then,
    WarmUp,
)

NUMBERS = {  # where a number goes, and numbers outside its range
    "Constant.value": (Constant, [-0.1]),
    "Inverse.beta": (Inverse, [0, -0.1]),
    "Polynomial.beta": (Polynomial, [0, -1]),
    "Polynomial.alpha": (lambda value: Polynomial(0.1, value), [0, -0.5]),
    "Exponential.decay": (Exponential, [0, -0.1]),
    "of_base": (Exponential.of_base, [0, 1, 1.5, -0.5]),
    "Staircase.ratio": (lambda value: Staircase(3, value), [0, 1, 2, -0.1]),
    "PiecewiseConstant.factors": (lambda value: PiecewiseConstant((3,), (1, value)), [-1e-9]),
    "Cosine.floor": (lambda value: Cosine(3, value), [-0.1, 1.1]),
    "DecayAtEnd.share": (lambda value: DecayAtEnd(9, value), [0, -0.3, 1.1]),
    "WarmUp.start": (lambda value: WarmUp(3, value), [-0.1, 1.1]),
    "Scaled.factor": (lambda value: Scaled(value, Inverse(0.1)), [-1]),
}
WHOLE = {
    "Staircase.every": (Staircase, [0, -1]),
    "PiecewiseConstant.at": (lambda value: PiecewiseConstant((value,), (1, 0.1)), [0, -3]),
    "Cosine.steps": (Cosine, [0, -1]),
    "DecayAtEnd.total": (DecayAtEnd, [0, -1]),
    "WarmUp.steps": (WarmUp, [0, -1]),
    "Then.after": (lambda value: Then(Inverse(0.1), Inverse(0.1), value), [0, -1]),
    "Shifted.by": (lambda value: Shifted(Inverse(0.1), value), [-1]),
}


@pytest.mark.parametrize(("make", "outside"), NUMBERS.values(), ids=NUMBERS)
def test_a_number_outside_its_range_is_an_error_that_shows_it(make, outside):
    for value in (*outside, math.nan, math.inf, -math.inf, True, "0.5", 10**400, torch.tensor(0.5)):
        with pytest.raises(ScheduleError, match=r"= .*: expected a (finite )?number"):
            make(value)


@pytest.mark.parametrize(("make", "outside"), WHOLE.values(), ids=WHOLE)
def test_a_number_of_steps_that_is_none_is_an_error_that_shows_it(make, outside):
    for value in (*outside, 3.0, 2.5, True, "3", math.inf):
        with pytest.raises(ScheduleError, match=r"= .*: expected a whole number, at least [01]"):
            make(value)


@pytest.mark.parametrize(
    ("at", "factors", "message"),
    [
        ((), (1,), "boundaries that rise, at least one"),
        ((60, 30), (1, 0.1, 0.01), "boundaries that rise"),
        ((30, 30), (1, 0.1, 0.01), "boundaries that rise"),
        ((30, 60), (1, 0.1), "2 boundaries and 2 factors: expected 3 factors"),
        (30, (1, 0.1), "expected sequences"),
        ((30,), 0.1, "expected sequences"),
        (None, None, "expected sequences"),
        ("30", (1, 0.1), "one of at = '3': expected a whole number"),
    ],
)
def test_pieces_that_do_not_fit_are_an_error(at, factors, message):
    with pytest.raises(ScheduleError, match=message):
        PiecewiseConstant(at, factors)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Then(Inverse(0.1), abs, 3),
        lambda: Inverse(0.1).then(lambda t: 1.0, after=3),
        lambda: Product(0.5, Inverse(0.1)),
        lambda: Scaled(0.5, 0.5),
        lambda: Shifted(abs, 1),
    ],
)
def test_only_schedules_compose(make):
    with pytest.raises(ScheduleError, match="expected a schedule"):
        make()


@pytest.mark.parametrize("make", [lambda: Inverse(0.1) * "2", lambda: None * Inverse(0.1), lambda: Inverse(0.1) * abs])
def test_a_product_with_something_else_is_the_type_error_of_python(make):
    with pytest.raises(TypeError, match="Inverse"):
        make()


def test_parameters_become_plain_numbers_and_tuples():
    assert repr(Inverse(np.float32(0.5))) == "Inverse(beta=0.5)"
    assert repr(Staircase(np.int64(30))) == "Staircase(every=30, ratio=0.1)"
    assert repr(PiecewiseConstant([30], [1, 0])) == "PiecewiseConstant(at=(30,), factors=(1.0, 0.0))"
    assert np.float64(0.5) * Inverse(1) == 0.5 * Inverse(1.0)


def test_the_ends_of_the_ranges_are_inside():
    assert Constant(0)(3) == Cosine(3)(3) == (0 * Inverse(0.1))(3) == 0.0
    assert Cosine(3, floor=1)(3) == WarmUp(1)(0) == WarmUp(9, start=1)(0) == 1.0
    assert Inverse(0.1).shifted(0)(5) == Inverse(0.1)(5)
