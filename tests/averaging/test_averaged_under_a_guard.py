"""Averaged under a guard: the step it limits is the one that is averaged, and nothing that is lost is averaged in."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from safestep import AttachError, Averaged, Cap, Pin, SafestepWarning, SoftmaxRadius, Status, attach


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3)).double()


def step(model, averaged, seed, spoil=False):
    torch.manual_seed(seed)
    inputs, labels = torch.randn(64, 5).double(), torch.randint(3, (64,))
    averaged.zero_grad()
    F.cross_entropy(model(inputs), labels).backward()
    if spoil:
        next(model.parameters()).grad[0, 0] = torch.nan
    averaged.step()
    return inputs


@pytest.mark.parametrize("policy", [Cap(1.0), Pin(0.3)])
@pytest.mark.parametrize("radius", [None, SoftmaxRadius()], ids=["default", "softmax"])
def test_z_goes_where_the_guard_let_the_step_go(policy, radius):
    model = network()
    averaged = Averaged(torch.optim.AdamW(model.parameters(), lr=50.0, betas=(0.0, 0.999)))
    guard = attach(model, averaged, policy=policy, radius=radius)
    for index in range(6):
        y = [p.detach().clone() for p in model.parameters()]
        z = [averaged.state.get(p, {}).get("z", p).detach().clone() for p in model.parameters()]
        step(model, averaged, index)
        moved = [averaged.state[p]["z"] - old for p, old in zip(model.parameters(), z, strict=True)]
        c = (index + 1) ** 2 / sum((k + 1) ** 2 for k in range(index + 1))
        length = sum((move**2).sum() for move in moved).sqrt() * (1 - 0.9 * (1 - c))
        assert length.item() == pytest.approx(guard.last.applied_length, rel=1e-9)
        assert guard.last.status in (Status.CAPPED, Status.PINNED)
        assert guard.last.applied_ratio == pytest.approx(1.0 if isinstance(policy, Cap) else 0.3, rel=1e-6)
        pulled = [c * (zs - ys) for zs, ys in zip(z, y, strict=True)]
        for p, old, pull, move in zip(model.parameters(), y, pulled, moved, strict=True):
            torch.testing.assert_close(p.detach(), old + pull + move * (1 - 0.9 * (1 - c)), rtol=1e-9, atol=1e-12)


def test_a_wide_limit_changes_nothing():
    ends = []
    for guarded in (False, True):
        model = network()
        averaged = Averaged(torch.optim.SGD(model.parameters(), lr=1e-3))
        if guarded:
            attach(model, averaged)
        for index in range(5):
            step(model, averaged, index)
        ends.append([p.detach().clone() for p in model.parameters()])
    assert all(map(torch.equal, *ends))


@pytest.mark.parametrize("on_nonfinite", ["undo", "skip"])
@pytest.mark.parametrize("when", [0, 3])
def test_a_step_that_is_not_finite_is_not_averaged_in(on_nonfinite, when):
    model = network()
    averaged = Averaged(torch.optim.SGD(model.parameters(), lr=0.1))
    guard = attach(model, averaged, on_nonfinite=on_nonfinite)
    for index in range(6):
        step(model, averaged, index, spoil=index == when)
        assert (guard.last.status in (Status.UNDONE, Status.SKIPPED)) == (index == when)
    averaged.eval()
    assert all(p.isfinite().all() for p in model.parameters())


def test_the_first_step_of_adam_may_be_skipped():
    model = network()
    averaged = Averaged(torch.optim.AdamW(model.parameters(), betas=(0.0, 0.999)))
    attach(model, averaged, on_nonfinite="skip")
    for index in range(3):
        step(model, averaged, index, spoil=index == 0)
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    "wrapped", [lambda one: one, lambda one: SimpleNamespace(optimizer=one)], ids=["bare", "wrapped"]
)
def test_several_are_averaged_together_or_not_at_all(wrapped):
    model = network()
    halves = list(model.parameters())
    first, second = (torch.optim.SGD(half, lr=100.0) for half in (halves[:2], halves[2:]))
    for apart in ([Averaged(first), Averaged(second)], [Averaged(first), second]):
        with pytest.raises(AttachError, match="one Averaged around all"):
            attach(model, apart)
    averaged = Averaged(first, second)
    guard = attach(model, wrapped(averaged), policy=Cap(1.0))
    for index in range(4):
        step(model, averaged, index)
        assert guard.last.step == index
        assert guard.last.applied_ratio <= 1.0 + 1e-9


def test_the_authors_own_optimizer_is_pointed_here():
    schedulefree = pytest.importorskip("schedulefree")
    model = network()
    with pytest.warns(SafestepWarning, match=r"safestep\.Averaged around the plain optimizer"):
        attach(model, schedulefree.SGDScheduleFree(model.parameters()))
