"""Schedules as values: composed, printed, compared, copied, frozen."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, fields

import pytest
import torch

from safestep import schedules
from safestep.schedules import (
    Constant,
    Cosine,
    DecayAtEnd,
    Inverse,
    PiecewiseConstant,
    Product,
    Scaled,
    Schedule,
    ScheduleError,
    Shifted,
    Staircase,
    Then,
    WarmUp,
)
from schedules.examples import EVERY, every_schedule

A, B = Inverse(0.1), Staircase(4)


def test_operators_make_the_compositions():
    assert A.then(B, after=3) == Then(A, B, 3)
    assert Product(A, B) == A * B
    assert 0.5 * A == A * 0.5 == Scaled(0.5, A)
    assert A.shifted(2) == Shifted(A, 2)


@pytest.mark.parametrize("t", range(12))
def test_compositions_are_what_their_parts_give(t):
    assert A.then(B, after=3)(t) == (A(t) if t < 3 else B(t - 3))
    assert (A * B)(t) == A(t) * B(t)
    assert (0.5 * A)(t) == 0.5 * A(t)
    assert A.shifted(2)(t) == A(t + 2)
    assert A.shifted(2).shifted(3)(t) == A(t + 5)


@pytest.mark.parametrize(
    ("first", "length"),
    [
        (WarmUp(5), 5),
        (Cosine(7), 7),
        (PiecewiseConstant((3, 8), (1, 0.5, 0.1)), 8),
        (WarmUp(5).then(Cosine(7)), 12),
        (WarmUp(5) * DecayAtEnd(7), 7),
        (0.5 * WarmUp(5), 5),
        (WarmUp(5) * Cosine(7), 7),
        (WarmUp(5).shifted(2), 3),
    ],
    ids=repr,
)
def test_a_schedule_with_a_length_is_followed_for_it(first, length):
    both = first.then(B)
    assert both == first.then(B, after=length)
    assert both(length - 1) == first(length - 1)
    assert both(length) == B(0)


@pytest.mark.parametrize(
    "endless", [Constant(), A, B, A * WarmUp(5), WarmUp(5).then(A), WarmUp(5).shifted(5), 0.5 * A], ids=repr
)
def test_a_schedule_without_a_length_has_to_be_told_when_the_next_begins(endless):
    assert endless.length is None
    with pytest.raises(ScheduleError, match="no end of its own: say when"):
        endless.then(B)


@pytest.mark.parametrize(
    ("schedule", "step", "value"),
    [
        (Constant(0.3), 0, 0.3),
        (Cosine(9, floor=0.1), 9, 0.1),
        (DecayAtEnd(10, share=0.5), 9, 0.2),
        (WarmUp(9), 8, 1.0),
        (WarmUp(9).then(Cosine(9)), 18, 0.0),
        (0 * A, 0, 0.0),
        (WarmUp(9) * PiecewiseConstant((3,), (1, 0.5)), 8, 0.5),
        (WarmUp(9).shifted(20), 0, 1.0),
    ],
    ids=repr,
)
def test_a_schedule_stays_where_it_has_settled(schedule, step, value):
    assert schedule(torch.arange(step, step + 50)).unique().tolist() == [value]
    assert [schedule(step), schedule(step + 10**6)] == [value, value]


# -- as values ---------------------------------------------------------------------------------------------------------


@every_schedule
def test_a_schedule_prints_as_the_code_that_makes_it(schedule):
    assert eval(repr(schedule), vars(schedules).copy()) == schedule


@every_schedule
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_is_equal_and_hashes_the_same(schedule, copied):
    other = copied(schedule)
    assert other == schedule
    assert hash(other) == hash(schedule)
    assert other(3) == schedule(3)


def test_schedules_of_different_kinds_or_numbers_differ():
    assert len(set(EVERY)) == len(EVERY)
    assert Inverse(0.1) != Inverse(0.2)
    assert A * B != B * A  # a product of functions is the same, but not the same writing


@every_schedule
def test_a_schedule_is_frozen_and_its_dict_is_empty(schedule):
    """A checkpoint of LambdaLR holds the ``__dict__`` of a callable object: it has to exist and to be empty."""
    assert vars(schedule) == {}
    for field in fields(schedule):
        with pytest.raises(FrozenInstanceError):
            setattr(schedule, field.name, 1)
    with pytest.raises((FrozenInstanceError, TypeError)):  # the latter by a slip of Python 3.11's dataclasses
        schedule.other = 1
    assert vars(schedule) == {}


@pytest.mark.parametrize("kind", [kind for kind in vars(schedules).values() if isinstance(kind, type)])
def test_every_kind_is_abstract_or_final(kind):
    if issubclass(kind, Schedule):
        assert kind is Schedule or kind.__final__
        assert bool(kind.__abstractmethods__) == (kind is Schedule)


def test_every_kind_is_among_the_examples():
    kinds = {kind for kind in vars(schedules).values() if isinstance(kind, type) and issubclass(kind, Schedule)}
    assert kinds - {Schedule} == {type(schedule) for schedule in EVERY}
