"""Warnings point at the user's line, and an audit that fails is said once."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import SGD

import safestep
from safestep import SafestepWarning, Watch
from safestep.guard.audit import Audit
from zoo.loop import Loop


def test_a_warning_of_attach_points_at_the_call():
    model = nn.Linear(4, 3).bfloat16()
    optimizer = SGD(model.parameters(), lr=0.1)
    with pytest.warns(SafestepWarning) as caught:
        safestep.attach(model, optimizer)
    assert caught[0].filename == __file__


def test_a_warning_of_a_step_points_at_the_step():
    model = nn.Linear(4, 3)
    optimizer = SGD(model.parameters(), lr=0.1)
    safestep.attach(model, optimizer, policy=Watch())
    torch.zeros(1, requires_grad=True)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    with pytest.warns(SafestepWarning, match="could not be measured") as caught:
        optimizer.step()
    assert caught[0].filename == __file__
    assert caught[0].lineno == test_a_warning_of_a_step_points_at_the_step.__code__.co_firstlineno + 8


def test_an_audit_that_fails_is_said_once(monkeypatch):
    loop = Loop()
    loop.guard.audit()
    loop.steps(1)

    def breaks(self, step, seen, report):
        self.excesses[report.step] = 1.0  # so that its text changes
        raise ZeroDivisionError

    monkeypatch.setattr(Audit, "__call__", breaks)
    with pytest.warns(SafestepWarning, match="failed and is left out") as caught:
        loop.steps(4)
    assert len(caught) == 1
