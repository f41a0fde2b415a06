"""The KL divergence along a step: closed forms, derivatives, the bound of the remainder, and how far one may go."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from safestep.formulas.kl_divergence import divergence_ratio, sigmoid_divergence, softmax_divergence
from safestep.formulas.softmax_ratio import spread
from zoo import examples


def softmax_kl(q, p):
    """By the definition, in float64."""
    q, p = q.log_softmax(-1), p.log_softmax(-1)
    return (q.exp() * (q - p)).sum(-1)


def sigmoid_kl(q, p):
    """A sigmoid is a softmax over (0, z)."""
    pair = lambda z: torch.stack([torch.zeros_like(z), z], -1)  # noqa: E731
    return softmax_kl(pair(q), pair(p)).sum(-1)


KINDS = {"softmax": (softmax_divergence, softmax_kl), "sigmoid": (sigmoid_divergence, sigmoid_kl)}
KIND = pytest.mark.parametrize("kind", KINDS)


def rows(seed, classes=5, scale=1.0):
    return scale * torch.randn(4, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@KIND
def test_it_is_the_taylor_series_of_the_divergence(kind):
    divergence, kl = KINDS[kind]
    z, a, q = rows(0), rows(1), rows(2)
    one = lambda s: kl(q, z + s * a)  # noqa: E731
    slope = lambda s: torch.func.jvp(one, (s,), (torch.ones_like(s),))[1]  # noqa: E731
    zero = torch.zeros((), dtype=torch.float64)
    bend = torch.func.jvp(slope, (zero,), (torch.ones_like(zero),))[1]
    for ours, theirs in zip(divergence(z, a, q), (one(zero), slope(zero), bend), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@KIND
def test_without_a_reference_it_is_that_of_the_start(kind):
    divergence, _ = KINDS[kind]
    z, a = rows(0), rows(1)
    for ours, theirs in zip(divergence(z, a), divergence(z, a, z), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@KIND
@given(seed=st.integers(0, 10**6), power=st.floats(-2, 1.5), apart=st.floats(0, 5))
@examples(100)
def test_the_remainder_is_within_its_bound(kind, seed, power, apart):
    divergence, kl = KINDS[kind]
    z, a, q = rows(seed, scale=2.0), rows(seed + 1, scale=10.0**power), rows(seed + 2)
    q = z + apart * q
    value, slope, bend = divergence(z, a, q)
    cubed = spread(a) ** 3 if kind == "softmax" else a.abs().pow(3).sum(-1)
    remainder = (kl(q, z + a) - (value + slope + bend / 2)).abs()
    assert bool((remainder <= cubed / (36 * math.sqrt(3)) * (1 + 1e-9) + 1e-12).all())


DIRECTIONS = {"from before": (softmax_kl, 36), "from after": (lambda before, after: softmax_kl(after, before), 18)}
DIRECTION = pytest.mark.parametrize("direction", DIRECTIONS)
"""Both divergences of a step, and the whole number in the bound of their remainder."""


@DIRECTION
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 9), peak=st.floats(0, 6), tau=st.floats(-20, 20))
@examples(100)
def test_the_step_is_half_its_variance_within_the_bound_in_both_directions(direction, seed, classes, peak, tau):
    kl, whole = DIRECTIONS[direction]
    z, a = rows(seed, classes, scale=peak), rows(seed + 1, classes)
    remainder = (kl(z, z + tau * a) - tau**2 / 2 * softmax_divergence(z, a).bend).abs()
    bound = abs(tau) ** 3 * spread(a) ** 3 / (whole * math.sqrt(3))
    assert bool((remainder <= bound * (1 + 1e-9) + 1e-12).all())


@DIRECTION
def test_the_bound_of_the_remainder_is_sharp(direction):
    """The third derivative of two classes reaches it where p (1 - p) |1 - 2 p| is largest."""
    kl, whole = DIRECTIONS[direction]
    p = (1 + 1 / math.sqrt(3)) / 2
    z = torch.tensor([[math.log(p), math.log(1 - p)]], dtype=torch.float64)
    a = torch.tensor([[1e-2, 0.0]], dtype=torch.float64)
    for tau in (-1.0, 0.5, 1.0):
        remainder = (kl(z, z + tau * a) - tau**2 / 2 * softmax_divergence(z, a).bend).abs().item()
        assert remainder == pytest.approx(abs(tau) ** 3 * 1e-6 / (whole * math.sqrt(3)), rel=0.01)


@given(shift=st.floats(-1e3, 1e3), seed=st.integers(0, 1000))
@examples(30)
def test_shifts_and_permutations_of_the_classes_change_nothing(shift, seed):
    z, a, q = rows(seed), rows(seed + 1), rows(seed + 2)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    plain = softmax_divergence(z, a, q)
    for other in (
        softmax_divergence(z + shift, a, q - shift),
        softmax_divergence(z, a + shift, q),
        softmax_divergence(z[:, order], a[:, order], q[:, order]),
    ):
        for ours, theirs in zip(other, plain, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_masked_classes_have_no_part():
    z, a, q = rows(0), rows(1), rows(2)
    mask = lambda tensor, value: torch.nn.functional.pad(tensor, (0, 1), value=value)  # noqa: E731
    masked = softmax_divergence(mask(z, -math.inf), mask(a, math.nan), mask(q, -math.inf))
    for ours, theirs in zip(masked, softmax_divergence(z, a, q), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert bool(softmax_divergence(mask(z, -math.inf), mask(a, 0.0), mask(q, 0.0)).value.isinf().all())


NATS = st.floats(0.0, 2.0)


@given(value=NATS, slope=st.floats(-2.0, 2.0), bend=st.floats(1e-3, 4.0), largest=st.floats(1e-3, 1.0))
@examples(200)
def test_the_step_goes_as_far_as_it_may(value, slope, bend, largest):
    ratio = divergence_ratio(value, slope, bend, largest)
    along = lambda s: value + s * slope + s * s * bend / 2  # noqa: E731
    if ratio == math.inf:
        assert value >= largest
        assert slope >= 0.0
        return
    assume(ratio > 1e-6)
    s = 1 / ratio
    lowest = max(0.0, -slope / bend)
    if along(lowest) < largest:  # some of the way is inside: to where that ends
        assert along(s) == pytest.approx(largest, abs=1e-6)
        assert s >= lowest * (1 - 1e-9)
    else:  # none is: to where it is nearest
        assert s == pytest.approx(lowest, rel=1e-3)


def test_where_nothing_moves_nothing_limits():
    assert divergence_ratio(0.0, 0.0, 0.0, 0.01) == divergence_ratio(0.5, 0.0, 0.0, 0.01) == 0.0
    assert math.isnan(divergence_ratio(0.0, math.nan, 1.0, 0.01))
