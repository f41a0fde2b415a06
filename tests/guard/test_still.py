"""Every call of step() is one index: what moved nothing is a record, and disturbs nothing that was learnt."""

from __future__ import annotations

import math

import pytest
import torch

from safestep import Cap, Pin, SoftmaxRadius, Status, Throttle, Watch
from zoo.loop import Loop

RADII = {"tiered": SoftmaxRadius(), "exact": SoftmaxRadius(method="exact"), "never": SoftmaxRadius(sync="never")}


@pytest.mark.parametrize("radius", RADII.values(), ids=RADII)
@pytest.mark.parametrize("policy", [Cap(1.0), Watch(Cap(1.0)), Pin(0.01)], ids=str)
def test_a_warm_up_from_nothing_counts(radius, policy):
    asked = []
    loop = Loop(radius=radius, policy=policy)
    for _ in range(3):
        loop.step(lr=0.0)
    loop.step(lr=0.01)
    asked = loop.reports
    assert [report.step for report in asked] == [0, 1, 2, 3]
    assert [report.status for report in asked[:3]] == [Status.STILL] * 3
    assert asked[3].status is not Status.STILL
    report = asked[0]
    assert (report.scale, report.ratio, report.applied_ratio, report.step_length) == (1.0, 0.0, 0.0, 0.0)
    assert math.isnan(report.radius)
    assert (report.lrs, report.age) == ((0.0,), 0)


@pytest.mark.parametrize("radius", RADII.values(), ids=RADII)
def test_a_still_step_disturbs_nothing_that_was_learnt(radius):
    loop = Loop(radius=radius).steps(8)
    learnt = loop.guard.state_dict()["memory"]
    for _ in range(40):
        loop.step(lr=0.0)
    state = loop.guard.state_dict()
    assert state["step"] == 48
    assert _learnt(state["memory"]) == _learnt(learnt)


def _learnt(memory):
    from safestep.guard.checkpoint import _unpacked

    return {part: value for part, value in _unpacked(memory).items() if part != "forwards"}


def test_a_throttle_remembers_nothing_of_a_still_step():
    loop = Loop(policy=Throttle(order=2))
    loop.steps(3)
    learnt = loop.guard.state_dict()["memory"]
    loop.step(lr=0.0)
    assert _learnt(loop.guard.state_dict()["memory"]) == _learnt(learnt)


def test_a_scheduled_target_follows_the_calls():
    loop = Loop(policy=Cap(lambda step: 1.0 + step))
    for lr in (0.0, 0.0, 0.01):
        loop.step(lr=lr)
    assert [report.target for report in loop.reports] == [1.0, 2.0, 3.0]


def test_a_fused_step_that_a_scaler_skips_counts():
    loop = Loop(optimizer=lambda p, lr: torch.optim.SGD(p, lr=lr, fused=True))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for bad in (True, False):
        loop.optimizer.zero_grad()
        x, y = loop.batch()
        scaler.scale(torch.nn.functional.cross_entropy(loop.model(x), y)).backward()
        if bad:
            next(loop.model.parameters()).grad[0, 0] = math.inf
        scaler.step(loop.optimizer)
        scaler.update()
    assert [(r.step, r.status) for r in loop.reports] == [(0, Status.STILL), (1, Status.INSIDE)]
