"""A part of the rows of a batch: what is cut, and what the largest of a sample tells of the largest of all."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from safestep import attach
from safestep.radius.radius import Needs, Radius
from safestep.radius.subset import largest_of_all, rows_of


class Passes(nn.Module):
    """Takes anything, looks at the first tensor; large enough for its logits to be kept."""

    def __init__(self, shape=lambda z: z):
        super().__init__()
        self.layer, self.shape, self.spare = nn.Linear(4, 3), shape, nn.Parameter(torch.zeros(100))

    def forward(self, x, *rest, **more):
        return self.shape(self.layer(x))


def recorded(*args, model=None, keep=True, **kwargs):
    """Return the forward that a guard records of a model, as a radius meets it."""
    model, found = model or Passes(), []

    class Keeps(Radius):
        needs = Needs(logits=keep)

        def measure(self, proposal, state):
            found.extend(proposal.forwards.kept)
            raise ValueError("enough")

    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    attach(model, optimizer, radius=Keeps())
    model(*args, **kwargs).square().sum().backward()
    with pytest.raises(ValueError, match="enough"):
        optimizer.step()
    found[0].heads = found[0].outputs
    return found[0]


def test_every_tensor_with_a_row_for_each_sample_is_cut_and_nothing_else():
    x, weights, table = torch.randn(8, 4), torch.rand(8), torch.randn(5, 8)
    scalar, whole = torch.tensor(3.0), {"ids": torch.arange(8), "names": ["a"] * 8, "deep": [torch.randn(8, 2, 3)]}
    forward = recorded(x, weights, table, scalar, 8, more=whole)
    part = rows_of(forward, 4, 1)
    assert torch.equal(part.args[0], x[1::4])
    assert torch.equal(part.args[1], weights[1::4])
    assert part.args[2] is table
    assert part.args[3] is scalar
    assert part.args[4] == 8
    assert torch.equal(part.kwargs["more"]["ids"], torch.tensor([1, 5]))
    assert part.kwargs["more"]["names"] == ["a"] * 8
    assert torch.equal(part.kwargs["more"]["deep"][0], whole["deep"][0][1::4])
    (cut,), (output,) = part.heads, forward.heads
    assert torch.equal(cut.max_logits, output.max_logits[1::4])
    assert torch.equal(cut.active[-1], output.active[-1][1::4])
    assert torch.equal(part.kept_logits()[0], output.value[1::4])
    assert (part.generators, part.training, part.buffers) == (forward.generators, forward.training, forward.buffers)
    assert forward.args[0] is x  # the recorded forward itself is whole


@pytest.mark.parametrize("index", range(9))
def test_the_rows_take_turns(index):
    x = torch.arange(32.0).view(8, 4)
    assert torch.equal(rows_of(recorded(x), 4, index).args[0], x[index % 4 :: 4])


@pytest.mark.parametrize(("rows", "one_in"), [(1, 4), (7, 4), (3, 2), (1, 1)])
def test_a_batch_too_small_is_not_cut(rows, one_in):
    assert rows_of(recorded(torch.randn(rows, 4)), one_in, 0) is None


def test_without_an_input_that_has_the_rows_there_is_no_part():
    pooled = Passes(lambda z: z.repeat_interleave(2, 0))
    assert rows_of(recorded(torch.randn(8, 4), model=pooled), 4, 0) is None
    single = Passes(lambda z: z.sum(0))
    assert rows_of(recorded(torch.randn(8, 4), model=single), 4, 0) is None


def test_logits_that_were_not_kept_are_not_cut():
    assert rows_of(recorded(torch.randn(8, 4), keep=False), 4, 0).kept_logits() is None


# -- the largest of all -----------------------------------------------------------------------------------------------


@given(
    spreads=st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=40),
    more=st.integers(0, 1000),
)
def test_the_estimate_is_never_below_the_sample_and_grows_with_what_is_left_out(spreads, more):
    sample = torch.tensor(spreads)
    few, many = (largest_of_all(sample, len(spreads) + n) for n in (more, 2 * more))
    assert sample.max().item() <= few * (1 + 1e-6)
    assert few <= many * (1 + 1e-6)
    assert largest_of_all(sample, len(spreads)) == pytest.approx(sample.max().item())


def test_the_estimate_does_not_depend_on_the_unit():
    sample = torch.rand(64, generator=torch.Generator().manual_seed(0))
    assert largest_of_all(1e3 * sample, 256) == pytest.approx(1e3 * largest_of_all(sample, 256), rel=1e-5)


@pytest.mark.parametrize(("size", "whole"), [(64, 256), (32, 128), (256, 4096)])
def test_over_an_exponential_tail_it_is_the_largest_of_all_on_average(size, whole):
    """The expected maximum of n exponentials is the harmonic number H(n).

    The mean excess of the top k over the next is an unbiased mean of the tail, so the estimate has the expectation
    H(m) + ln(n / m), which falls short of H(n) by less than 1 / (2m). 4000 draws leave a standard error below 0.03.
    """
    draws = torch.empty(4000, size).exponential_(generator=torch.Generator().manual_seed(1))
    mean = sum(largest_of_all(row, whole) for row in draws) / len(draws)
    harmonic = sum(1 / k for k in range(1, whole + 1))
    assert mean == pytest.approx(harmonic, abs=0.1)
    plain = draws.amax(1).mean().item()
    assert harmonic - plain > 0.9 * math.log(whole / size)  # what it is there for


def test_nan_is_not_lost():
    assert math.isnan(largest_of_all(torch.tensor([1.0, math.nan, 2.0]), 12))
