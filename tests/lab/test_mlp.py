"""The perceptron of the protocol."""

from __future__ import annotations

import torch
from torch import nn

from safestep.lab.models import mlp


def test_it_is_the_protocols():
    model = mlp()
    assert [tuple(p.shape) for p in model.parameters()] == [(128, 64), (128,), (128, 128), (128,), (10, 128), (10,)]
    assert [m.approximate for m in model if isinstance(m, nn.GELU)] == ["none", "none"]
    assert mlp(inputs=3, width=5, classes=2)(torch.ones(4, 3)).shape == (4, 2)


def test_initialisation_is_the_default_of_linear_layers_in_order():
    torch.manual_seed(1)
    model = mlp()
    torch.manual_seed(1)
    layers = [nn.Linear(64, 128), nn.Linear(128, 128), nn.Linear(128, 10)]
    own = list(model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(own, [p for m in layers for p in m.parameters()], strict=True))
