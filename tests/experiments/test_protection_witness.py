"""The witness notices a single bit, and nothing else."""

from __future__ import annotations

import math

import pytest
import torch

from safestep.experiments.protection.protection_witness import Witness


@pytest.fixture
def stepped():
    """A parameter, its optimizer and a witness of it, to step with."""
    parameter = torch.nn.Parameter(torch.tensor([1.0, 0.0, math.nan]))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    parameter.grad = torch.tensor([1.0, 0.0, 1.0])
    with Witness(optimizer) as witness:
        yield parameter, optimizer, witness


def test_what_nobody_touched_is_untouched_nan_included(stepped):
    _, optimizer, witness = stepped
    optimizer.step()
    assert witness.untouched()


@pytest.mark.parametrize(("place", "value"), [(0, 0.5000001), (1, -0.0), (2, 1.0)])
def test_a_single_bit_is_noticed(stepped, place, value):
    parameter, optimizer, witness = stepped
    optimizer.register_step_post_hook(lambda *_: parameter.data.__setitem__(place, value))
    optimizer.step()
    assert not witness.untouched()


def test_a_witness_that_left_sees_no_later_step():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    with Witness(optimizer) as witness:
        pass
    assert not optimizer._optimizer_step_post_hooks
    assert witness.untouched()
