"""Line search: what it accepts falls enough, and is the longest of its sequence that does."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from safestep.lab.rivals.line_search import LineSearch


@given(
    curvatures=st.lists(st.floats(0.01, 100), min_size=1, max_size=4),
    seed=st.integers(0, 99),
    batches=st.integers(1, 9),
)
def test_what_is_accepted_falls_enough_and_what_is_tenfold_ninths_longer_does_not(curvatures, seed, batches):
    bends = torch.tensor(curvatures, dtype=torch.float64)
    start = torch.randn(len(bends), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    weight = nn.Parameter(start.clone())
    search = LineSearch([weight], batches)

    def at(w: torch.Tensor) -> torch.Tensor:
        return (bends * w * w).sum() / 2

    for _ in range(3):
        first = min(10.0, search.rate * 2 ** (1 / batches))
        before = weight.detach().clone()
        gradient = bends * before
        assert search.step(lambda: at(weight)) == at(before).item()

        def falls(rate: float, w=before, g=gradient) -> bool:
            return bool(at(w - rate * g) <= at(w) - 0.1 * rate * g.square().sum())

        tried = [first]
        while tried[-1] > search.rate:
            tried.append(0.9 * tried[-1])
        assert tried[-1] == pytest.approx(search.rate, rel=1e-12)
        assert falls(search.rate)
        assert not any(map(falls, tried[:-1]))
        torch.testing.assert_close(weight.detach(), before - search.rate * gradient, rtol=0, atol=1e-12)


def test_on_a_parabola_the_longest_allowed_is_by_hand():
    # f = w² / 2 falls enough below η = 2 (1 - 0.1) = 1.8; with one batch an epoch it doubles first, from 1
    weight = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    search = LineSearch([weight], batches=1)
    search.step(lambda: weight**2 / 2)
    assert search.rate == pytest.approx(2 * 0.9**2)  # at 2 · 0.9, the bound itself, rounding decides
    assert weight.item() == pytest.approx(1 - 2 * 0.9**2)


def test_it_grows_to_ten_at_most_and_no_further():
    weight = nn.Parameter(torch.tensor(1.0))
    search = LineSearch([weight], batches=1)
    for _ in range(5):
        search.step(lambda: 1e-3 * weight)
    assert search.rate == 10.0


def test_without_a_fall_it_ends_with_a_tiny_step():
    weight = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    search = LineSearch([weight])
    search.step(lambda: weight if weight.item() == 1.0 else math.nan * weight)
    assert weight.item() == 1.0 - 1e-6


def test_no_gradient_no_step_and_no_trial():
    weight = nn.Parameter(torch.tensor(0.0))
    calls = []
    LineSearch([weight]).step(lambda: calls.append(1) or weight**2)
    assert weight.item() == 0.0
    assert len(calls) == 1
