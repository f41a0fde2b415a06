"""The two sums over a step, ||p||^2 and g.p, against float64 sums over copies, in every layout and type."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from safestep.recording import norms as module
from safestep.recording.norms import magnitude
from safestep.recording.step import Step

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
ROUNDING = {torch.float64: 1e-13, torch.float32: 1e-5, torch.complex64: 1e-5}


@pytest.fixture(params=["alone", "together"])
def grouping(request, monkeypatch):
    """Parameters one by one, as on a CPU, or as many at a time as fit the memory of the largest, as on a GPU."""
    monkeypatch.setattr(module, "ONE_BY_ONE", {"alone": {"cpu", "cuda"}, "together": set()}[request.param])


def moved(parameters, seed=0, size=1.0):
    """Remember where the parameters are, and move them and give them gradients at random."""
    generator = torch.Generator().manual_seed(seed)
    step = Step(0)
    step.remember(parameters)
    with torch.no_grad():
        for p in parameters:
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.add_((size * noise).to(p.device, p.dtype))
            if p.grad is None:
                p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.device, p.dtype)
    return step


def truth(step):
    """The same in float64, from plain copies in plain order."""
    wide = {q: (q.detach().cpu().to(torch.complex128) - s.cpu().to(torch.complex128)) for q, s in step.start.items()}
    square = sum((p.abs() ** 2).sum().item() for p in wide.values())
    slope = sum(
        (p.real * q.grad.to_dense().cpu().double()).sum().item()
        for q, p in wide.items()
        if q.grad is not None and not q.is_complex()
    )
    return square, slope


def parameter(*shape, dtype=torch.float32, device="cpu"):
    return torch.nn.Parameter(torch.randn(shape, dtype=dtype, device=device))


def plain(device):
    return [parameter(3, 4, device=device), parameter(7, device=device), parameter(2, 3, 2, device=device)]


def channels_last(device):
    images = torch.randn(4, 3, 2, 2, device=device).to(memory_format=torch.channels_last)
    thin = torch.randn(4, 1, 3, 3, device=device).to(memory_format=torch.channels_last)
    return [torch.nn.Parameter(images), torch.nn.Parameter(thin), parameter(5, device=device)]


def transposed(device):
    return [torch.nn.Parameter(torch.randn(5, 3, device=device).T), parameter(5, device=device)]


def strided(device):
    """Not dense in memory: every second column of something."""
    return [torch.nn.Parameter(torch.randn(4, 6, device=device)[:, ::2]), parameter(2, 2, device=device)]


def empty_and_scalar(device):
    return [parameter(0, device=device), parameter(3, 0, device=device), parameter(device=device), parameter(4)]


def double(device):
    return [parameter(3, 4, dtype=torch.float64, device=device), parameter(2, dtype=torch.float64, device=device)]


def mixed(device):
    return [parameter(3, 4, dtype=torch.float64, device=device), parameter(9, device=device)]


LAYOUTS = pytest.mark.parametrize(
    "build", [plain, channels_last, transposed, strided, empty_and_scalar, double, mixed], ids=lambda f: f.__name__
)


@LAYOUTS
@pytest.mark.parametrize("device", DEVICES)
def test_both_sums_in_every_layout(build, device, grouping):
    step = moved(build(device))
    square, slope = magnitude(step.start, {}, directional_derivative=True)
    wanted = truth(step)
    precision = ROUNDING[torch.float64 if build is double else torch.float32]
    assert square.item() == pytest.approx(wanted[0], rel=precision)
    # a sum of terms of both signs: its rounding is that of the terms
    assert slope.item() == pytest.approx(wanted[1], abs=precision * math.sqrt(wanted[0]) * 10)


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_in_another_layout_than_their_parameter(device, grouping):
    parameters = [parameter(3, 4, device=device), *channels_last(device)]
    parameters[0].grad = torch.randn(4, 3, device=device).T
    parameters[1].grad = torch.randn(4, 3, 2, 2, device=device)  # contiguous; the parameter is channels_last
    step = moved(parameters)
    assert magnitude(step.start, {}, directional_derivative=True)[1].item() == pytest.approx(truth(step)[1], abs=1e-4)


def test_an_expanded_gradient(grouping):
    parameters = [parameter(3, 4), parameter(2)]
    parameters[0].grad = torch.ones(()).expand(3, 4)
    step = moved(parameters)
    assert magnitude(step.start, {}, directional_derivative=True)[1].item() == pytest.approx(truth(step)[1], abs=1e-5)


def test_missing_gradients_add_nothing(grouping):
    parameters = plain("cpu")
    step = moved(parameters)
    parameters[1].grad = None
    assert magnitude(step.start, {}, directional_derivative=True)[1].item() == pytest.approx(truth(step)[1], abs=1e-5)
    for p in parameters:
        p.grad = None
    square, slope = magnitude(step.start, {}, directional_derivative=True)
    assert slope.item() == 0.0
    assert square.item() == pytest.approx(truth(step)[0], rel=1e-5)


def sparse_gradient():
    table = parameter(6, 2)
    table.grad = torch.sparse_coo_tensor(torch.tensor([[0, 3, 0]]), torch.randn(3, 2), (6, 2))
    return [table, parameter(3)]


def reduced(dtype):
    return lambda: [parameter(40, 3, dtype=dtype), parameter(7)]


def complex_parameter():
    return [parameter(3, 4, dtype=torch.complex64), parameter(7)]


def other_gradient_dtype():
    one = parameter(3, 4)
    one.grad_dtype = None
    one.grad = torch.randn(3, 4).bfloat16()
    return [one, parameter(7)]


UNPLAIN = {
    "sparse": (sparse_gradient, 1e-5),
    "float16": (reduced(torch.float16), 1e-3),
    "bfloat16": (reduced(torch.bfloat16), 1e-2),
    "complex": (complex_parameter, 1e-5),
    "gradient-dtype": (other_gradient_dtype, 1e-5),
}


@pytest.mark.parametrize(("build", "precision"), UNPLAIN.values(), ids=UNPLAIN)
def test_where_the_slope_cannot_be_had_it_is_none_and_the_length_is_right(build, precision, grouping):
    """A difference of reduced precision is rounded once more, to the precision of the parameters."""
    if build is other_gradient_dtype and not hasattr(torch.Tensor, "grad_dtype"):
        pytest.skip("this torch has one dtype for a parameter and its gradient")
    step = moved(build())
    square, slope = magnitude(step.start, {}, directional_derivative=True)
    assert slope is None
    assert square.item() == pytest.approx(truth(step)[0], rel=precision)


def test_the_slope_is_left_out_where_nobody_asks(grouping):
    step = moved(plain("cpu"))
    assert magnitude(step.start, {}, directional_derivative=False)[1] is None


@LAYOUTS
def test_the_scratch_is_no_larger_than_the_largest_parameter(build, grouping):
    step, scratch = moved(build("cpu")), {}
    magnitude(step.start, scratch, directional_derivative=True)
    for (_, dtype), memory in scratch.items():
        assert memory.numel() == max(q.numel() for q in step.start if q.dtype == dtype)


def test_the_groups_of_a_device_fill_the_largest_parameter_and_keep_all(monkeypatch):
    parameters = [parameter(n) for n in (3, 10, 4, 6, 1, 9)]
    monkeypatch.setattr(module, "ONE_BY_ONE", set())
    groups = [[p.numel() for p in group] for group in module._groups(parameters)]
    assert groups == [[3], [10], [4, 6], [1, 9]]


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15, 1e30])
def test_lengths_beyond_the_range_of_float32_sums(size, grouping):
    parameters = [torch.nn.Parameter(torch.zeros(3, 4)), torch.nn.Parameter(torch.zeros(5))]
    step = moved(parameters, size=size)
    assert step.read(directional_derivative=True).length == pytest.approx(math.sqrt(truth(step)[0]), rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_not_finite_has_no_finite_length(bad, grouping):
    parameters = plain("cpu")
    step = moved(parameters)
    with torch.no_grad():
        parameters[1][0] = bad
    assert not math.isfinite(step.read(directional_derivative=True).length)


@given(st.integers(0, 1000), st.floats(-6, 6))
def test_the_sums_are_homogeneous(seed, power):
    size = 10.0**power
    parameters = [torch.nn.Parameter(torch.zeros(3, 4, dtype=torch.float64))]
    one, other = moved(parameters, seed).read(directional_derivative=True), None
    parameters = [torch.nn.Parameter(torch.zeros(3, 4, dtype=torch.float64))]
    other = moved(parameters, seed, size).read(directional_derivative=True)
    assert other.length == pytest.approx(size * one.length, rel=1e-12)
    assert other.directional_derivative == pytest.approx(size * one.directional_derivative, rel=1e-9)


def test_nothing_to_move_has_no_length():
    step = Step(0)
    step.remember([parameter(0)])
    assert step.read(directional_derivative=True).length == 0.0
    assert Step(0).read(directional_derivative=True).length == 0.0


def test_parameters_that_share_memory_are_scaled_once():
    one, other = nn.Parameter(torch.ones(4)), nn.Parameter(torch.zeros(4))
    other.data = one.data
    step = Step(0)
    step.remember([one, other])
    one.data.add_(1.0)
    step.rescale(0.5)
    assert one.tolist() == other.tolist() == [1.5] * 4
