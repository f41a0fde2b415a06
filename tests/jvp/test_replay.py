"""A replay leaves no trace: not in the model, not in a generator, not in torch's switches."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import safestep
from safestep._torch.rng import GeneratorStates, preserved_generators
from safestep._torch.unwrap import bare
from safestep.jvp.replay import no_trace


class Busy(nn.Module):
    """A layer that does everything a layer should not."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        self.cache = x
        self.training = not self.training
        random.random()
        np.random.random()
        return x + torch.rand_like(x)


def test_attributes_flags_and_generators_come_back():
    model = nn.Sequential(Busy(), nn.Dropout())
    before = [dict(vars(module)) for module in model.modules()]
    draws = (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state())
    with no_trace(model):
        model(torch.ones(3))
    assert [dict(vars(module)) for module in model.modules()] == before
    assert random.getstate() == draws[0]
    assert (np.random.get_state()[1] == draws[1]).all()
    assert torch.equal(torch.get_rng_state(), draws[2])


def test_global_switches_come_back_even_after_an_error():
    switches = lambda: (  # noqa: E731
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.mkldnn.enabled,
        torch.backends.cuda.flash_sdp_enabled(),
        torch.is_grad_enabled(),
    )
    before, inside = switches(), None
    model = nn.LSTM(2, 2)
    try:
        with no_trace(model):
            inside = switches()
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert switches() == before
    assert inside == (False, False, False, False)


def test_the_same_numbers_are_drawn_again():
    states = GeneratorStates.capture()
    first = (random.random(), np.random.random(), torch.rand(1).item())
    with preserved_generators():
        torch.rand(100)
    second_torch = torch.rand(1).item()
    states.restore()
    assert (random.random(), np.random.random(), torch.rand(1).item()) == first
    assert torch.rand(1).item() == second_torch


def test_wrappers_are_taken_off():
    model = nn.Linear(2, 2)
    assert bare(torch.compile(model, backend="eager")) is model
    assert bare(nn.DataParallel(model)) is model
    assert bare(model) is model


def test_a_module_under_several_names_keeps_its_parameters_and_buffers():
    """functional_call swaps such a module twice, and leaves the first swap in the second's place."""
    layer, norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
    model = nn.Sequential(layer, norm, nn.GELU(), layer, norm, nn.Linear(4, 3))
    before = dict(model.named_parameters()), dict(model.named_buffers())
    optimizer = torch.optim.SGD(model.parameters(), lr=100.0)
    guard = safestep.attach(model, optimizer, radius=safestep.SoftmaxRadius(method="probe"))
    F.cross_entropy(model(torch.randn(5, 4)), torch.randint(3, (5,))).backward()
    optimizer.step()
    assert guard.last.status is safestep.Status.CAPPED
    after = dict(model.named_parameters()), dict(model.named_buffers())
    for one, other in zip(before, after, strict=True):
        assert one.keys() == other.keys()
        assert all(other[name] is tensor for name, tensor in one.items())
