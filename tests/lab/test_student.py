"""The student: its layers, its Glorot start, and its way back to it."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from safestep.lab.affine_teacher import AffineTeacher
from safestep.lab.student import Student

SIZES = st.lists(st.integers(1, 9), max_size=3)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@given(SIZES, st.booleans(), st.integers(0, 1000))
def test_layers_are_as_asked_for(hidden, bias, seed):
    model = Student(3, 2, hidden=hidden, activation=nn.Tanh, bias=bias, seed=seed)
    dense = [layer for layer in model if isinstance(layer, nn.Linear)]
    assert [(d.in_features, d.out_features) for d in dense] == list(pairwise([3, *hidden, 2]))
    assert all((d.bias is not None) == bias for d in dense)
    assert sum(isinstance(layer, nn.Tanh) for layer in model) == len(hidden)
    assert model(torch.zeros(4, 3)).shape == (4, 2)


@given(SIZES, st.integers(0, 1000))
def test_weights_are_glorot_uniform(hidden, seed):
    for layer in Student(5, 4, hidden=hidden, seed=seed, bias=True):
        if isinstance(layer, nn.Linear):
            bound = math.sqrt(6 / (layer.in_features + layer.out_features))
            assert layer.weight.abs().max() <= bound
            assert not layer.bias.any()


def test_weights_fill_the_glorot_range():
    weight = Student(200, 100, seed=1)[0].weight
    bound = math.sqrt(6 / 300)
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert weight.abs().max() > 0.999 * bound


@pytest.mark.parametrize("options", [{}, {"hidden": [8], "bias": True, "activation": nn.Tanh}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reset_is_the_start_bit_for_bit(options, dtype):
    model = Student(4, 2, seed=7, dtype=dtype, **options)
    before, parameters = state(model), [id(p) for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(6, 4, dtype=dtype)).square().sum().backward()
        optimizer.step()
    model.eval()
    assert any(not torch.equal(a, b) for a, b in zip(before.values(), state(model).values(), strict=True))
    assert model.reset() is model
    assert all(torch.equal(a, b) for a, b in zip(before.values(), state(model).values(), strict=True))
    assert [id(p) for p in model.parameters()] == parameters  # an optimizer still has them
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_two_of_a_seed_are_the_same_and_two_seeds_are_not():
    one, other, third = (Student(seed=seed)[0].weight for seed in (1, 1, 2))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


def test_no_global_generator_is_drawn_from():
    before = torch.get_rng_state()
    Student(hidden=[5], bias=True).reset()
    assert torch.equal(torch.get_rng_state(), before)


def test_matrices_are_those_of_a_linear_student_alone():
    model = Student(hidden=[3], activation=nn.Identity)
    x = torch.randn(5, 4)
    first, last = model.matrices
    assert torch.allclose(model(x), x @ first.T @ last.T)
    assert Student(hidden=[3], activation=nn.ReLU).matrices == []


def test_a_teacher_makes_a_student_of_its_shapes():
    model = AffineTeacher(A=[[1.0, 2.0, 3.0]]).student([6], seed=3)
    assert model(torch.zeros(2, 3)).shape == (2, 1)
    assert model.seed == 3


def test_an_empty_layer_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Student(hidden=[0])
