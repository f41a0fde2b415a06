"""One schedule of every kind, and nested compositions, for the tests that hold for all."""

from __future__ import annotations

import pytest

from safestep.schedules import (
    Constant,
    Cosine,
    DecayAtEnd,
    Exponential,
    Inverse,
    PiecewiseConstant,
    Polynomial,
    Staircase,
    WarmUp,
)

SIMPLE = (
    Constant(),
    Constant(0.25),
    Inverse(0.1),
    Polynomial(0.1),
    Polynomial(0.3, alpha=2.5),
    Exponential(0.1),
    Exponential.of_base(0.9),
    Staircase(7, ratio=0.3),
    PiecewiseConstant(at=(5, 11), factors=(1, 0.1, 0.01)),
    PiecewiseConstant(at=(5,), factors=(0.5, 0)),
    Cosine(20),
    Cosine(20, floor=0.1),
    DecayAtEnd(20),
    DecayAtEnd(9, share=1),
    WarmUp(6),
    WarmUp(6, start=0.3),
)
COMPOSED = (
    WarmUp(5).then(Cosine(30)),
    Constant(0.1).then(WarmUp(4).then(Inverse(0.2)), after=3),
    0.5 * Polynomial(0.1, alpha=0.75),
    WarmUp(5) * Inverse(0.1),
    Exponential(0.05) * Cosine(12),
    Inverse(0.1).shifted(2),
    WarmUp(5) * DecayAtEnd(30),
    WarmUp(5).then(DecayAtEnd(12, share=0.5)),
    (0.3 * WarmUp(5, start=0.1).then(Staircase(4) * Constant(0.5))).shifted(1),
)
EVERY = SIMPLE + COMPOSED
DECAYS = (
    Inverse(0.3),
    Polynomial(0.3, alpha=0.7),
    Exponential(0.3),
    Staircase(3),
    Cosine(9),
    Cosine(9, floor=0.3),
    DecayAtEnd(9),
)

every_schedule = pytest.mark.parametrize("schedule", EVERY, ids=repr)
every_decay = pytest.mark.parametrize("schedule", DECAYS, ids=repr)
