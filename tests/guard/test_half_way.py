"""A guard that is detached inside a forward, another default device, and what models saved by earlier versions hold."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

import safestep
from safestep import AttachError, Cap, Pin, Policy, Radius, SoftmaxRadius, Status, Watch
from safestep.recording.weak_hook import WeakHook
from zoo.loop import Loop


@pytest.mark.parametrize("method", ["tiered", "exact"])
@pytest.mark.parametrize("first", [True, False], ids=["hook first", "guard first"])
def test_detached_by_a_hook_of_the_user_the_forward_goes_on(method, first):
    loop = Loop(guarded=False)
    guards = []
    detach = lambda *_: guards[0].detach() if guards else None  # noqa: E731
    if first:
        handle = loop.model.register_forward_hook(detach)
    guards.append(safestep.attach(loop.model, loop.optimizer, radius=SoftmaxRadius(method=method)))
    if not first:
        handle = loop.model.register_forward_pre_hook(detach)
    loop.steps(2)
    handle.remove()
    assert _get_current_dispatch_mode() is None
    assert not guards[0].attached
    assert not list(guards[0].history)


@pytest.mark.parametrize(("policy", "status"), [(Cap(0.01), Status.CAPPED), (Pin(0.1), Status.PINNED)])
def test_the_policy_is_asked_on_the_host_whatever_the_default_device(policy, status):
    loop = Loop(policy=policy, lr=1.0)
    loop.backward()
    with torch.device("meta"):
        loop.optimizer.step()
    assert loop.guard.last.status is status


def test_a_stub_of_an_earlier_version_is_found_under_its_former_name():
    former = pickle.dumps(WeakHook()).replace(b"safestep.recording.weak_hook", b"safestep.recording.forward_hooks")
    former = former.replace(b"\x8c\x1csafestep.recording.forward_hooks", b"\x8c\x20safestep.recording.forward_hooks")
    former = former.replace(b"\x8c\x08WeakHook", b"\x8c\x05_Hook")
    framed = former.index(b"\x95")  # the frame has another length now: leave it out
    assert isinstance(pickle.loads(former[:framed] + former[framed + 9 :]), WeakHook)


def test_a_policy_or_radius_with_other_arguments_is_refused_when_it_is_attached():
    class Before(Policy):
        def scale(self, reading, state):
            return 1.0, state

    class Earlier(Radius):
        def measure(self, step, seen, state): ...

    for options, text in (({"policy": Before()}, "ratio, length, target, state"), ({"radius": Earlier()}, "proposal")):
        with pytest.raises(AttachError, match=text):
            Loop(**options)
    with pytest.raises(AttachError, match="ratio, length"):
        Loop(policy=Watch(Before()))
