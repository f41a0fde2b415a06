"""The log of a real run: inside, one rate a thousand times too large, steps undone, and inside again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import safestep

SPIKE, BROKEN, STEPS = 30, (40, 41), 60


def train(log: object, steps: int = STEPS, **options: object) -> safestep.Guard:
    """Train a small model; the rate is a thousand times itself at one step, the gradients are nan at two."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(64, 8), torch.randint(0, 3, (64,))
    guard = safestep.attach(model, optimizer, log=log, **options)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 100.0 if step == SPIKE else 0.1
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        if step in BROKEN:
            model[0].weight.grad[0, 0] = torch.nan
        optimizer.step()
    guard.detach()
    return guard


@pytest.fixture
def trained():
    """`train`, for the tests of this folder."""
    return train


@pytest.fixture(scope="session")
def logs(tmp_path_factory) -> Path:
    """A folder with steps.csv and steps.jsonl of one run."""
    place = tmp_path_factory.mktemp("logs")
    train([str(place / "steps.csv"), str(place / "steps.jsonl")])
    return place
