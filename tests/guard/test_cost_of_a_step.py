"""What a guarded step asks of the machine: forwards, read-backs and memory, counted on the operations issued."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from safestep import Cap, SoftmaxRadius, Watch
from safestep.guard.controller import Controller
from safestep.radius.deferred import Decision
from zoo.loop import FEATURES, Loop, network

TIERED, NEVER = SoftmaxRadius(), SoftmaxRadius(sync="never")
READS = {torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.__bool__, torch.Tensor.__float__, torch.Tensor.__int__}


class _Scalars(TorchDispatchMode):
    """Counts the operation that ``item`` and its kin end in."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    """Counts the methods of a tensor that hand numbers to Python; ``tolist`` issues no operation on a CPU."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func in READS
        return func(*args, **(kwargs or {}))


class Made(TorchDispatchMode):
    """Sizes, in elements, of the tensors that operations made in memory of their own."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {_place(t) for t in tree_leaves((args, kwargs or {})) if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        fresh = {_place(t): t for t in tree_leaves(result) if isinstance(t, torch.Tensor) and _place(t) not in given}
        self.sizes += [t.untyped_storage().nbytes() // t.element_size() for t in fresh.values()]
        return result

    def of_at_least(self, size):
        return sum(one >= size for one in self.sizes)


def _place(tensor):
    return tensor.untyped_storage()._cdata


def read_backs(loop):
    """Return how often one call of ``optimizer.step`` reads the device."""
    loop.backward()
    with _Scalars() as operations, _Methods() as methods:
        loop.optimizer.step()
    loop.index += 1
    return operations.count, methods.count


class Counts(nn.Module):
    """Counts its own forwards where no replay puts the count back: on the class."""

    calls = 0

    def __init__(self, *layers):
        super().__init__()
        self.body = nn.Sequential(*layers) if layers else network()

    def forward(self, x):
        Counts.calls += 1
        return self.body(x)


# -- forwards ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [TIERED, NEVER], ids=["auto", "never"])
@pytest.mark.parametrize("policy", [Cap(1.0), Watch()], ids=str)
def test_a_skipped_step_runs_no_forward(radius, policy):
    loop, forwards = Loop(Counts(), radius=radius, policy=policy), []
    for _ in range(40):
        before = Counts.calls
        loop.step()
        forwards.append(Counts.calls - before)
    ways = loop.ways
    assert ways.count("skip") > 20
    assert {count for count, way in zip(forwards, ways, strict=True) if way == "skip"} == {1}  # training's own


def test_a_probe_runs_one_forward_where_the_logits_of_training_are_kept():
    """At every power of two one more, to see that a replay repeats the training forward."""
    loop, forwards = Loop(Counts(), radius=SoftmaxRadius(method="probe"), rows=8), []
    for _ in range(20):
        before = Counts.calls
        loop.step()
        forwards.append(Counts.calls - before - 1)
    measured_again = [count for step, count in enumerate(forwards, 1) if step & (step - 1)]
    assert measured_again.count(1) >= len(measured_again) - 1  # a guess may be off once


def test_a_probe_runs_two_where_the_logits_are_larger_than_the_parameters():
    loop, forwards = Loop(Counts(nn.Linear(FEATURES, 3)), radius=SoftmaxRadius(method="probe"), rows=100), []
    for _ in range(20):
        before = Counts.calls
        loop.step()
        forwards.append(Counts.calls - before - 1)
    assert min(forwards) == 2


def test_an_audited_step_that_is_not_audited_runs_no_forward_either():
    loop = Loop(Counts())
    audit = loop.guard.audit(0.1)
    for _ in range(30):
        before, counted = Counts.calls, audit.count
        loop.step()
        if loop.ways[-1] == "skip" and audit.count == counted:
            assert Counts.calls == before + 1


# -- read-backs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [SGD, AdamW])
@pytest.mark.parametrize("policy", [Cap(1.0), Watch(), Watch(Cap(0.9))], ids=str)
@pytest.mark.parametrize(("radius", "allowed"), [(TIERED, 1), (NEVER, 0)], ids=["auto", "never"])
def test_a_skipped_step_reads_the_device_once_or_never(radius, allowed, policy, optimizer, monkeypatch):
    """``never`` reads, a step later, what a skipped step left: numbers that have been on their way meanwhile.

    On a CPU it also reads the scale, which costs nothing there; here it goes the way of a device. A policy
    that is asked about a number of the host answers there.
    """
    monkeypatch.setattr(Controller, "_scale", lambda controller, reading, proposal: (1.0, None))
    monkeypatch.setattr(Decision, "apply", lambda decision, step: step.rescale_unread(decision.scale))
    plain = Loop(guarded=False, optimizer=optimizer)
    loop = Loop(optimizer=optimizer, radius=radius, policy=policy)
    quiet = []
    for _ in range(14):
        (operations, methods), (own_operations, own_methods) = read_backs(loop), read_backs(plain)
        quiet.append((operations - own_operations, methods - own_methods))
    assert loop.ways == [*loop.ways[:3], *["skip"] * 11]
    assert quiet[3] == (0, allowed)
    assert quiet[4:] == [(0, 1)] * 10


def test_the_counter_counts():
    with _Scalars() as operations, _Methods() as methods:
        x = torch.ones(2)
        x.tolist()
        bool(x[0])
        x[0].item()
    assert operations.count == 2
    assert methods.count == 3


# -- memory -----------------------------------------------------------------------------------------------------------

WIDE = 4096
"""Rows that make the logits larger than every parameter and activation of the loop's network."""


def made_by(loop, act):
    with Made() as made:
        act(loop)
    return made


def whole_step(loop):
    loop.step()


def step_alone(loop):
    loop.optimizer.step()
    loop.index += 1


@pytest.mark.parametrize("radius", [TIERED, NEVER], ids=["auto", "never"])
def test_a_skipped_step_makes_nothing_of_the_logits_size(radius):
    """In forward, backward and step together: as many tensors of that size with a guard as without."""
    size = WIDE * 3
    model = nn.Linear(FEATURES, 3)
    plain, loop = Loop(nn.Linear(FEATURES, 3), guarded=False, rows=WIDE), Loop(model, rows=WIDE, radius=radius)
    plain.steps(4)
    loop.steps(4)
    ours, theirs = made_by(loop, whole_step), made_by(plain, whole_step)
    assert loop.ways[-1] == "skip"
    assert theirs.of_at_least(size) > 0
    assert ours.of_at_least(size) == theirs.of_at_least(size)


@pytest.mark.parametrize("radius", [TIERED, NEVER], ids=["auto", "never"])
@pytest.mark.parametrize("optimizer", [SGD, AdamW])
def test_a_skipped_step_makes_nothing_of_a_parameters_size(radius, optimizer):
    """No copy of the parameters, no displacement: all memory is that of the step before."""
    model, other = (nn.Linear(64, 64) for _ in range(2))
    loops = [
        Loop(nn.Sequential(nn.Linear(FEATURES, 64), one, nn.Linear(64, 3)), optimizer=optimizer, **options)
        for one, options in ((model, {"radius": radius}), (other, {"guarded": False}))
    ]
    for loop in loops:
        loop.steps(5)
        loop.backward()
    # the gradients of AdamW's own step are the same; lerp on the device writes its result through one temporary
    ours, theirs = (made_by(loop, step_alone) for loop in loops)
    assert loops[0].ways[-1] == "skip"
    allowed = 0 if radius is TIERED else 2 * len(list(loops[0].model.parameters()))
    assert ours.of_at_least(64 * 3) - theirs.of_at_least(64 * 3) <= allowed


def test_no_displacement_is_made_on_a_step_that_is_left_alone():
    made = []
    loop = Loop(diagnostics=[lambda step, seen, report: made.append("displacement" in vars(step)) or {}]).steps(20)
    assert made == [False] * 20
    assert any("skip" in way for way in loop.ways)


def test_of_large_logits_a_probe_makes_two_and_no_third():
    """One at each end of the difference; what lies between is looked at in pieces."""
    classes, rows = 2048, 2048
    model = nn.Linear(FEATURES, classes)
    loop = Loop(model, rows=rows, radius=SoftmaxRadius(method="probe")).steps(2)
    loop.backward()
    made = made_by(loop, step_alone)  # the third probe: no power of two
    assert loop.ways[-1] == "probe"
    assert made.of_at_least(classes * rows) == 2
    assert max(made.sizes) == classes * rows


def test_the_logits_of_training_are_held_only_where_they_are_small():
    held = {}

    def look(rows):
        return lambda step, forwards, report: held.update({rows: forwards.kept[0].kept_logits() is not None}) or {}

    for rows in (4, 1000):
        Loop(rows=rows, diagnostics=[look(rows)]).step()
    assert held == {4: True, 1000: False}


def test_the_modes_of_this_file_are_left_again():
    with contextlib.suppress(ZeroDivisionError), Made(), _Scalars(), _Methods():
        raise ZeroDivisionError
    assert not torch.utils._python_dispatch._get_current_dispatch_mode()
