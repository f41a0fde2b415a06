"""For which optimizers rescaling the step equals a smaller learning rate: the table of docs/optimizers.md."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

OWN_STEP_SIZES = {
    "ASGD": "keeps the rate of the next step in its state",
    "Rprop": "keeps a step size for every parameter element; the rate is only the first one",
    "LBFGS": "iterates inside one step, so that a smaller rate changes where it looks next; watched, not scaled",
}
"""Optimizers whose step is not proportional to ``lr``, and why. A guard scales the step (or watches) all the same."""

OPTIMIZERS = {
    name: value
    for name, value in vars(torch.optim).items()
    if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
}


def one_step_from(state, weight, kind, lr, x, sparse):
    """Displacement of one step at a rate, from a given optimizer state."""
    model = fresh(sparse)
    with torch.no_grad():
        model.weight.copy_(weight)
    optimizer = kind(model.parameters(), lr=lr)
    optimizer.load_state_dict(copy.deepcopy(state))
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(lr) if isinstance(group["lr"], torch.Tensor) else lr
    optimizer.step(lambda: loss_of(model, x))
    return model.weight.detach() - weight, optimizer


def fresh(sparse):
    torch.manual_seed(0)
    model = torch.nn.Embedding(7, 4, sparse=True) if sparse else torch.nn.Linear(4, 7, bias=False)
    return model.double()


def loss_of(model, x):
    with torch.enable_grad():
        model.zero_grad()
        loss = model(x).exp().sum()
        loss.backward()
    return loss


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_the_table(name):
    kind, sparse = OPTIMIZERS[name], name == "SparseAdam"
    torch.manual_seed(1)
    x = torch.randint(0, 7, (5,)) if sparse else torch.randn(5, 4).double()
    model = fresh(sparse)
    optimizer = kind(model.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.step(lambda: loss_of(model, x))
    state, weight = optimizer.state_dict(), model.weight.detach().clone()
    long, _ = one_step_from(state, weight, kind, 1e-2, x, sparse)
    short, _ = one_step_from(state, weight, kind, 2.5e-3, x, sparse)
    apart = ((long / 4 - short).norm() / short.norm()).item()
    # Muon iterates in bfloat16, but on the same numbers; Adafactor's and Adadelta's eps leave the rest.
    assert (apart > 1e-3) if name in OWN_STEP_SIZES else (apart < 1e-9)


def test_the_documentation_shows_the_same_table():
    page = (Path(__file__).parents[2] / "docs" / "optimizers.md").read_text(encoding="utf-8")
    for name in OPTIMIZERS:
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert ("no:" in line) == (name in OWN_STEP_SIZES), line
        assert OWN_STEP_SIZES.get(name, "yes") in line
