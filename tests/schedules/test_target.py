"""Schedules as the target of a policy: the guard asks at each step, counted from 0."""

from __future__ import annotations

import pytest
import torch

import safestep
from safestep.schedules import Cosine, Inverse, WarmUp
from schedules.examples import every_schedule

LOOSENING = 0.5 * WarmUp(4, start=0.2).then(Inverse(0.5))


@pytest.mark.parametrize("policy", [safestep.Cap, safestep.Pin])
def test_a_guard_follows_the_target_step_by_step(policy):
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=100.0)
    guard = safestep.attach(model, optimizer, policy=policy(LOOSENING), radius=safestep.SoftmaxRadius(method="exact"))
    for _ in range(8):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.randn(6, 4)), torch.arange(6) % 3).backward()
        optimizer.step()
    assert [report.target for report in guard.history] == [LOOSENING(k) for k in range(8)]
    assert [report.applied_ratio for report in guard.history] == pytest.approx([LOOSENING(k) for k in range(8)])


@every_schedule
def test_a_policy_with_a_schedule_is_a_value(schedule):
    assert safestep.Cap(schedule) == safestep.Cap(schedule)
    assert hash(safestep.Cap(schedule)) == hash(safestep.Cap(schedule))
    assert repr(schedule) in repr(safestep.Cap(schedule))


def test_a_target_that_ends_at_zero_is_an_error_when_it_gets_there():
    with pytest.raises(ValueError, match=r"target\(10\) = 0.0: expected a positive number"):
        safestep.Cap(Cosine(10)).target_at(10)
    assert safestep.Cap(Cosine(10, floor=0.1)).target_at(10) == 0.1


def test_the_package_is_a_part_of_safestep():
    assert safestep.schedules.Inverse(0.1)(10) == 0.5
    assert "schedules" in safestep.__all__
