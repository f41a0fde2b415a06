"""The estimate of a mean from whole rows: unbiased, with a standard error that is right."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safestep.formulas.sampling import ratio_of_sums
from zoo import examples


def batch(seed, rows=40, tokens=8):
    """Values whose rows resemble themselves, as the tokens of a text do."""
    generator = torch.Generator().manual_seed(seed)
    level = torch.randn(rows, 1, generator=generator, dtype=torch.float64).exp()
    return level * torch.rand(rows, tokens, generator=generator, dtype=torch.float64)


def drawn(values, chosen):
    rows = torch.tensor(chosen).repeat_interleave(values.shape[1])
    return values[chosen].flatten(), torch.ones(rows.numel(), dtype=torch.float64), rows


def test_over_many_samples_the_error_is_as_large_as_stated_and_its_mean_is_zero():
    values, generator = batch(0), torch.Generator().manual_seed(1)
    errors, squares = [], []
    for _ in range(2000):
        chosen = torch.randperm(40, generator=generator)[:10].tolist()
        found = ratio_of_sums(*drawn(values, chosen), share=0.25)
        errors.append(found.value - float(values.mean()))
        squares.append(found.standard_error**2)
    errors = torch.tensor(errors)
    assert abs(float(errors.mean())) < 3 * float(errors.std()) / math.sqrt(2000)
    assert math.sqrt(sum(squares) / 2000) == pytest.approx(float(errors.std()), rel=0.05)


def test_single_tokens_as_rows_would_state_too_small_an_error():
    """The reason for rows: tokens of one text err together."""
    values = batch(0)
    x, w, rows = drawn(values, list(range(0, 40, 4)))
    whole, apart = ratio_of_sums(x, w, rows, 0.25), ratio_of_sums(x, w, torch.arange(len(x)), 0.25)
    assert apart.standard_error < 0.7 * whole.standard_error


@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
@examples(30)
def test_it_scales_with_the_values_and_not_with_the_weights(seed, scale):
    x, w, rows = drawn(batch(seed), [0, 5, 9])
    found, larger = ratio_of_sums(x, w, rows, 0.1), ratio_of_sums(scale * x, 7 * w, rows, 0.1)
    assert larger.value == pytest.approx(scale * found.value, rel=1e-12)
    assert larger.standard_error == pytest.approx(scale * found.standard_error, rel=1e-9)


def test_an_entry_of_weight_zero_is_not_there():
    x, w, rows = drawn(batch(3), [0, 5, 9])
    w[3] = 0.0
    without = [tensor[torch.arange(len(x)) != 3] for tensor in (x, w, rows)]
    assert ratio_of_sums(x, w, rows, 0.1) == pytest.approx(ratio_of_sums(*without, 0.1), rel=1e-12)


def test_the_whole_batch_leaves_nothing_to_chance_and_a_single_row_tells_nothing_of_it():
    x, w, rows = drawn(batch(3), list(range(40)))
    assert ratio_of_sums(x, w, rows, 1.0) == pytest.approx((float(x.mean()), 0.0))
    assert math.isnan(ratio_of_sums(*drawn(batch(3), [4]), 0.1).standard_error)
    assert all(map(math.isnan, ratio_of_sums(x, 0 * w, rows, 1.0)))
