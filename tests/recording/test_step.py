"""The step: displacement, length and rescaling, against plain arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safestep.recording.step import Step


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


# -- memory kept from step to step ------------------------------------------------------------------------------------


def shaken(parameters, previous=None, index=0):
    """One step that moves every parameter, over the memory of the previous one."""
    step = Step(index, previous)
    step.remember(parameters)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.ones_like(parameter))
    step.read(directional_derivative=True)
    return step


def test_the_next_step_writes_where_this_one_did():
    parameters = [torch.nn.Parameter(torch.randn(3, 4)), torch.nn.Parameter(torch.randn(5))]
    first = shaken(parameters)
    places = [tensor.data_ptr() for tensor in first.start.values()]
    scratch = {key: tensor.data_ptr() for key, tensor in first._scratch.items()}
    before = [p.detach().clone() for p in parameters]
    second = shaken(parameters, first, 1)
    assert [tensor.data_ptr() for tensor in second.start.values()] == places
    assert {key: tensor.data_ptr() for key, tensor in second._scratch.items()} == scratch
    assert all(torch.equal(second.start[p], b) for p, b in zip(parameters, before, strict=True))


def other_shape(parameter):
    parameter.data = torch.randn(6, 2)


def other_dtype(parameter):
    parameter.data = parameter.data.double()


def other_layout(parameter):
    parameter.data = torch.randn(4, 3).T


@pytest.mark.parametrize("change", [other_shape, other_dtype, other_layout])
def test_a_parameter_that_has_changed_gets_memory_of_its_own_kind(change):
    parameters = [torch.nn.Parameter(torch.randn(3, 4)), torch.nn.Parameter(torch.randn(5))]
    first = shaken(parameters)
    change(parameters[0])
    before = parameters[0].detach().clone()
    second = shaken(parameters, first, 1)
    start = second.start[parameters[0]]
    assert (start.shape, start.dtype, start.stride()) == (before.shape, before.dtype, before.stride())
    assert torch.equal(start, before)
    wide = parameters[0].detach().double() - before.double()
    assert second.length == pytest.approx(math.hypot(wide.norm().item(), math.sqrt(5)), rel=1e-5)


def test_parameters_that_come_and_go_leave_nothing_behind():
    parameters = [torch.nn.Parameter(torch.randn(3, 4)), torch.nn.Parameter(torch.randn(5))]
    first = shaken(parameters)
    second = shaken(parameters[:1], first, 1)
    assert list(second.start) == parameters[:1]
    third = shaken(parameters, second, 2)
    assert third.length == pytest.approx(math.sqrt(17), rel=1e-6)


def test_after_a_step_that_was_forgotten_the_next_remembers_afresh():
    """A step that raised half way: what it moved is where the next one starts."""
    parameters = [torch.nn.Parameter(torch.zeros(4))]
    step = Step(0)
    step.remember(parameters)
    with torch.no_grad():
        parameters[0].fill_(7.0)
    step.forget(parameters)
    step.remember(parameters)
    with torch.no_grad():
        parameters[0].fill_(9.0)
    assert step.length == 4.0
    step.undo()
    assert parameters[0].tolist() == [7.0] * 4


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64], ids=str
)
@pytest.mark.parametrize("again", [False, True])
def test_an_undone_step_is_where_it_began_bit_for_bit(dtype, again):
    parameters = [torch.nn.Parameter(torch.randn(7, 3).to(dtype)), torch.nn.Parameter(torch.randn(5).to(dtype))]
    step = shaken(parameters) if again else None
    before = [p.detach().clone() for p in parameters]
    step = shaken(parameters, step)
    with torch.no_grad():
        parameters[0][0] = math.nan
    step.undo()
    assert all(torch.equal(p, b) for p, b in zip(parameters, before, strict=True))


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_scale_that_only_the_device_knows_does_the_same(dtype, scale):
    parameters = [torch.nn.Parameter(torch.randn(7, 3).to(dtype))]
    start = parameters[0].detach().clone()
    step = shaken(parameters)
    ended = parameters[0].detach().clone()
    step.rescale_unread(torch.tensor(scale, dtype=torch.float64))
    wanted = start.double() + scale * (ended.double() - start.double())
    if scale in (0.0, 1.0):
        assert torch.equal(parameters[0].detach(), wanted.to(dtype))
    eps = torch.finfo(dtype).eps
    assert ((parameters[0].double() - wanted).abs() <= 2 * eps * wanted.abs().clamp(min=1.0)).all()
