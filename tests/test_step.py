"""The step: displacement, length and rescaling, against plain arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safestep.step import Step


def stepped(before, moves):
    step = Step(0)
    parameters = [torch.nn.Parameter(torch.tensor(values, dtype=torch.float64)) for values in before]
    step.remember(parameters)
    with torch.no_grad():
        for parameter, move in zip(parameters, moves, strict=True):
            parameter.add_(torch.tensor(move, dtype=torch.float64))
    return step, parameters


def test_displacement_and_length_cover_all_parameters():
    step, parameters = stepped([[1.0, 2.0], [0.0]], [[3.0, 0.0], [-4.0]])
    assert [step.displacement[p].tolist() for p in parameters] == [[3.0, 0.0], [-4.0]]
    assert step.length == 5.0


@given(st.floats(0.0, 1e6))
def test_rescale_is_the_straight_line(scale):
    step, parameters = stepped([[1.0, -2.0]], [[0.5, 8.0]])
    step.rescale(scale)
    assert parameters[0].tolist() == pytest.approx([1.0 + scale * 0.5, -2.0 + scale * 8.0], rel=1e-12, abs=1e-12)


def test_scale_one_writes_nothing():
    step, parameters = stepped([[1.0]], [[0.1]])
    version = parameters[0]._version
    step.rescale(1.0)
    assert parameters[0]._version == version


def test_undo_survives_an_infinite_end_point():
    step, parameters = stepped([[1.0, 2.0]], [[math.inf, math.nan]])
    step.undo()
    assert parameters[0].tolist() == [1.0, 2.0]


def test_a_scale_beyond_float32_is_still_the_straight_line():
    parameter = torch.nn.Parameter(torch.tensor([0.0, 1.0]))
    step = Step(0)
    step.remember([parameter])
    with torch.no_grad():
        parameter[0] = 2.0**-140
    assert step.length == 2.0**-140
    step.rescale(2.0**140)
    assert parameter.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_length_neither_under_nor_overflows(size):
    parameter = torch.nn.Parameter(torch.zeros(4))
    step = Step(0)
    step.remember([parameter])
    with torch.no_grad():
        parameter.fill_(size)
    assert step.length == pytest.approx(2 * size, rel=1e-6)


def test_rounding_after_a_huge_step_is_that_of_the_start():
    """theta_1 - p would cancel; theta_0 + s p does not."""
    start = torch.full((3,), 0.123456789)
    parameter = torch.nn.Parameter(start.clone())
    step = Step(0)
    step.remember([parameter])
    with torch.no_grad():
        parameter += 1e9
    step.rescale(1e-12)
    assert torch.allclose(parameter.detach(), start + 1e-3, rtol=1e-6)


def test_first_memory_wins_and_can_be_dropped():
    step, parameters = stepped([[1.0]], [[1.0]])
    step.remember(parameters)
    assert step.start[parameters[0]].item() == 1.0
    step.forget(parameters)
    assert step.length == 0.0


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
def test_bad_scales_are_refused(scale):
    step, _ = stepped([[1.0]], [[1.0]])
    with pytest.raises(ValueError, match="finite and not negative"):
        step.rescale(scale)
