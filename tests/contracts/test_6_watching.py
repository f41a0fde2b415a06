"""Contract 6, a policy that only watches: whatever breaks, training goes on bit for bit and the step says so."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn
from torch.optim import SGD

import safestep
from safestep import Cap, MeasurementError, SafestepWarning, SoftmaxRadius, Status, Watch
from safestep.distributed.consensus import Peers
from safestep.errors import RanksError
from safestep.guard.controller import Controller
from safestep.guard.group import Group
from safestep.guard.stalls import Standstill
from safestep.recording.step import Step
from safestep.recording.trained import Trained
from zoo.asserts import assert_identical
from zoo.loop import Loop

NEVER = SoftmaxRadius(sync="never")


class Broken(Exception):
    """What no part of safestep raises by itself."""


def breaks(*_: object, **__: object) -> None:
    raise Broken("broken on purpose")


BREAKS = {
    "remember": (Step, "remember"),
    "read": (Step, "read"),
    "sums": (Step, "sums"),
    "version": (Trained, "version"),
    "measure": (SoftmaxRadius, "measure"),
    "read norms": (Controller, "read_norms"),
    "scale": (Cap, "scale"),
    "target": (Cap, "target_at"),
    "resolve": (Controller, "resolve"),
}


@pytest.mark.parametrize(
    "radius", [SoftmaxRadius(), SoftmaxRadius(method="exact"), NEVER], ids=["auto", "exact", "never"]
)
@pytest.mark.parametrize("place", BREAKS)
def test_what_breaks_is_reported_and_changes_no_bit(place, radius, monkeypatch):
    plain = Loop(guarded=False, lr=5.0).steps(12)
    watched = Loop(lr=5.0, radius=radius, policy=Watch(Cap(1.0))).steps(6)
    owner, name = BREAKS[place]
    monkeypatch.setattr(owner, name, breaks)
    with pytest.warns(SafestepWarning) if not _harmless(place, radius) else contextlib.nullcontext():
        watched.steps(6)
        reports = watched.reports
    monkeypatch.undo()
    assert_identical(dict(enumerate(watched.parameters())), dict(enumerate(plain.parameters())))
    assert [report.step for report in reports] == list(range(len(reports)))
    assert len(reports) == 12
    if not _harmless(place, radius):
        assert reports[-1].status is Status.UNMEASURED
        assert "broken on purpose" in reports[-1].message


def _harmless(place: str, radius: SoftmaxRadius) -> bool:
    """Whether the part has no use here, or another way is taken without it."""
    return place == "resolve" and radius is not NEVER


def test_ranks_that_cannot_agree_are_reported(monkeypatch):
    watched, plain = Loop(policy=Watch(Cap(1.0))), Loop(guarded=False).steps(3)

    def lost(self, step):
        raise RanksError("rank 1 is gone")

    monkeypatch.setattr(Group, "peers", lost)
    with pytest.warns(SafestepWarning, match="rank 1 is gone") as caught:
        watched.steps(3)
    assert len(caught) == 1
    assert [report.status for report in watched.reports] == [Status.UNMEASURED] * 3
    assert_identical(dict(enumerate(watched.parameters())), dict(enumerate(plain.parameters())))


def test_a_poisoned_optimizer_is_said_and_not_raised(monkeypatch):
    watched = Loop(policy=Watch())
    monkeypatch.setattr(Standstill, "_count", breaks)
    with pytest.warns(SafestepWarning, match="broken on purpose"):
        watched.steps(2)
    assert len(watched.reports) == 2


def test_skipping_is_a_write_and_watching_writes_nothing(monkeypatch):
    """Not even a vote of the ranks is held, which could fail."""
    monkeypatch.setattr(Peers, "every", breaks)
    plain, watched = Loop(guarded=False), Loop(policy=Watch(Cap(1.0)), on_nonfinite="skip")
    for loop in (plain, watched):
        loop.step()
        loop.backward()
        next(loop.model.parameters()).grad[0, 0] = torch.nan
        loop.optimizer.step()
    assert watched.reports[-1].status is Status.NONFINITE
    assert torch.isnan(next(watched.model.parameters())).any()
    assert_identical(dict(enumerate(watched.parameters())), dict(enumerate(plain.parameters())))


def test_a_step_in_backward_is_reported():
    model = nn.Linear(4, 3)
    optimizer = SGD([model.weight], lr=0.1)
    guard = safestep.attach(model, optimizer, policy=Watch())
    model.weight.register_post_accumulate_grad_hook(lambda _: optimizer.step())
    before = model.weight.detach().clone()
    with pytest.warns(SafestepWarning, match="optimizer-in-backward"):
        nn.functional.cross_entropy(model(torch.randn(5, 4)), torch.zeros(5, dtype=torch.long)).backward()
    assert guard.last.status is Status.UNMEASURED
    assert not torch.equal(model.weight, before)


@pytest.mark.parametrize("sync", ["auto", "never"])
def test_who_writes_still_hears_of_it(sync, monkeypatch):
    loop = Loop(radius=SoftmaxRadius(sync=sync), policy=Cap(1.0)).steps(2)
    before = loop.parameters()
    monkeypatch.setattr(SoftmaxRadius, "measure", breaks)
    with pytest.raises((Broken, MeasurementError)):
        loop.step()
    assert_identical(dict(enumerate(loop.parameters())), dict(enumerate(before)))
