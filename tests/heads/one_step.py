"""One training step of models with several heads, beside the true r of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from safestep import SoftmaxRadius, Watch, attach
from zoo.truth import Truth

EXACT, PROBE = SoftmaxRadius(method="exact"), SoftmaxRadius(method="probe")
METHODS = pytest.mark.parametrize("radius", [EXACT, PROBE], ids=["exact", "probe"])


class Net(nn.Module):
    """Some heads on one body, returned in some parcel."""

    def __init__(self, parcel, *classes, scale=10.0):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.LayerNorm(8))
        self.heads = nn.ModuleList(nn.Linear(8, count) for count in classes)
        self.parcel, self.scale = parcel, scale

    def forward(self, x):
        hidden = self.body(x)
        outs = [head(hidden) * (self.scale if index else 1.0) for index, head in enumerate(self.heads)]
        return self.parcel(hidden, *outs)


def batch(rows=7, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 5, generator=generator), torch.randint(classes, (rows,), generator=generator)


def step(model, loss, *, read, lr=5.0, steps=1, rows=None, **options):
    """Train some steps; return the guard, and the true r of the last proposal (under Watch) or applied step."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    guard = attach(model, optimizer, **{"policy": Watch(), "radius": EXACT, **options})
    x, y = batch()
    for _ in range(steps):
        optimizer.zero_grad()
        truth = Truth(model, read, rows)
        loss(model(x), y).backward()
        optimizer.step()
    return guard, truth.ratio(model, x)
