"""Policies that decide on the device: the same scale as `scale`, on every path, and what cannot is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from safestep import Cap, Pin, Policy, SoftmaxRadius, Status, Throttle, Watch
from safestep.guard.checkpoint import Saved
from zoo.asserts import assert_identical
from zoo.loop import Loop
from zoo.policies import scale_of

NEVER = SoftmaxRadius(sync="never")
PATHS = {
    "tiered": SoftmaxRadius(),
    "probe": SoftmaxRadius(method="probe"),
    "exact": SoftmaxRadius(method="exact"),
    "never": NEVER,
}


@pytest.mark.parametrize("policy", [Cap(0.5), Throttle(), Throttle(low=0.6), Throttle(chi=0.2, low=0.25)], ids=str)
@pytest.mark.parametrize("radius", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("lr", [0.01, 1e3])
def test_watching_previews_exactly_what_would_be_done(policy, radius, lr):
    """From the same place, step by step: the run goes on where the policy leaves it."""
    done, watched = (Loop(radius=radius, policy=p) for p in (policy, Watch(policy)))
    for step in range(12):
        rate = lr if step in {8, 9} else 1e-3
        start = done.parameters()
        for loop in (done, watched):
            loop.step(lr=rate)
        report, preview = done.guard.last, watched.guard.last
        assert preview.would_scale == report.scale == report.would_scale
        assert (preview.scale, preview.status) == (1.0, Status.WATCHED)
        assert preview.method == report.method
        assert (preview.ratio, preview.predicted_ratio) == pytest.approx(
            (report.ratio, report.predicted_ratio), nan_ok=True
        )
        with torch.no_grad():  # what was watched stands where the plain optimizer put it
            for before, whole, cut in zip(start, watched.model.parameters(), done.model.parameters(), strict=True):
                assert torch.allclose(before + report.scale * (whole - before), cut, rtol=1e-4, atol=1e-6)
                whole.copy_(cut)


def test_a_low_end_of_a_throttle_holds_on_the_device():
    loop = Loop(radius=NEVER, policy=Throttle(low=0.6)).steps(8)
    loop.step(lr=1e4)
    assert loop.guard.last.method.startswith("skip")
    assert loop.guard.last.scale == pytest.approx(0.6)


@dataclass(frozen=True)
class Halves(Policy):
    """A user's policy, which halves every step beyond 1e-9; with ``learns`` it counts them."""

    learns: bool = False
    always: ClassVar[bool] = False

    def target_at(self, step):
        return 1.0

    def scale(self, ratio, length, target, state):
        count = {"count": (state or {"count": 0})["count"] + torch.ones_like(ratio)}
        return torch.where(ratio > 1e-9, 0.5, 1.0), count if self.learns else state


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("watch", [False, True])
def test_a_policy_of_ones_own_decides_on_the_device_unless_it_learns(learns, watch):
    policy = Watch(Halves(learns)) if watch else Halves(learns)
    loop = Loop(radius=NEVER, policy=policy).steps(12)
    assert {report.would_scale for report in loop.reports} == {0.5}
    assert {report.scale for report in loop.reports} == {1.0 if watch else 0.5}
    assert any(report.predicted for report in loop.reports)
    learnt = Saved.of(loop.guard.state_dict(), loop.guard.radius, policy).policy
    assert learnt == ({"count": 12.0} if learns else None)


def test_inside_and_under_watch_nothing_is_written_on_the_way():
    """Not even the same bits: a write raises the version counter."""
    for policy in (Cap(1.0), Watch(Cap(1.0))):
        plain, loop = Loop(guarded=False).steps(9), Loop(radius=NEVER, policy=policy).steps(9)
        for one in (plain, loop):
            one.backward()
        before = [[p._version for p in one.model.parameters()] for one in (plain, loop)]
        for one in (plain, loop):
            one.optimizer.step()
        after = [[p._version for p in one.model.parameters()] for one in (plain, loop)]
        rises = [[b - a for a, b in zip(*pair, strict=True)] for pair in zip(before, after, strict=True)]
        assert rises[0] == rises[1]
        assert loop.guard.last.method.startswith("skip")
        assert_identical(dict(enumerate(loop.parameters())), dict(enumerate(plain.parameters())))


def test_a_pin_measures_every_step_and_survives_a_prediction_of_nothing():
    assert scale_of(Pin(1.0), 0.0)[0] == 1.0
    loop = Loop(radius=NEVER, policy=Pin(0.01)).steps(6)
    assert not any(report.predicted for report in loop.reports)


@pytest.mark.parametrize("radius", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("watch", [False, True])
def test_a_target_is_asked_for_once_a_step(radius, watch):
    asked = []

    def target(step):
        asked.append(step)
        return 1.0

    policy = Watch(Cap(target)) if watch else Cap(target)
    loop = Loop(radius=radius, policy=policy, lr=0.01).steps(8)
    loop.step(lr=1e4)
    loop.step(lr=0.0)
    assert [report.target for report in loop.reports] == [1.0] * 10
    assert asked == list(range(10))
