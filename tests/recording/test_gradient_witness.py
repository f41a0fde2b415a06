"""By what factor gradients were multiplied since backward: seen exactly, or not claimed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from safestep.recording.gradient_witness import GradientWitness, factor_of
from zoo import examples


def trained(seed=0):
    """A network whose last layer's gradients sum to zero along a column, after one backward."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))
    witness = GradientWitness(list(model.parameters()))
    F.cross_entropy(model(torch.randn(16, 6)), torch.randint(0, 5, (16,))).backward()
    return model, witness


def seen(witness):
    numbers = witness.numbers()
    return factor_of(numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :])


@given(factor=st.floats(1e-6, 1e6), seed=st.integers(0, 50))
@examples(25)
def test_a_factor_on_all_gradients_is_seen(factor, seed):
    model, witness = trained(seed)
    for parameter in model.parameters():
        parameter.grad *= factor
    assert seen(witness) == pytest.approx(factor, rel=1e-4)


def test_clipping_by_the_norm_is_a_factor_and_untouched_gradients_have_1():
    model, witness = trained()
    assert seen(witness) == 1.0
    norm = nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    assert seen(witness) == pytest.approx(0.01 / (float(norm) + 1e-6), rel=1e-5)


def test_what_is_no_factor_is_not_claimed():
    model, witness = trained()
    nn.utils.clip_grad_value_(model.parameters(), 1e-3)
    assert math.isnan(seen(witness))


@pytest.mark.parametrize("left", [None, 0.0])
def test_gradients_that_are_gone_have_no_factor(left):
    model, witness = trained()
    for parameter in list(model.parameters())[:2]:
        parameter.grad = None if left is None else parameter.grad * left
    assert math.isnan(seen(witness))


def test_accumulated_gradients_count_as_the_last_backward_left_them():
    model, witness = trained()
    F.cross_entropy(model(torch.randn(16, 6)), torch.randint(0, 5, (16,))).backward()
    assert seen(witness) == 1.0


def test_it_leaves_with_its_hooks():
    model, witness = trained()
    for handle in witness.handles:
        handle.remove()
    assert all(not (q._post_accumulate_grad_hooks or ()) for q in model.parameters())
