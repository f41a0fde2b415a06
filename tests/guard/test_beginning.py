"""A guard whose own state was forgotten when a run was resumed says so once, and no other does."""

from __future__ import annotations

import copy
import inspect
from functools import partial

import pytest
import torch
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.optim import SGD, Adam, AdamW, Optimizer

import safestep
from safestep import SafestepWarning
from safestep.errors import NothingToMeasureError
from safestep.guard.beginning import _seen
from zoo.loop import Loop

MOMENTUM = partial(SGD, momentum=0.9)
FORGOTTEN = r"counts 3 steps, .*load the guard's too .*guard\.load_state_dict\(checkpoint\['guard'\]\)"


def kinds() -> list[type[Optimizer]]:
    known = [kind for _, kind in inspect.getmembers(torch.optim, inspect.isclass) if issubclass(kind, Optimizer)]
    # Of one kind of gradient, or parameter, or by a closure alone.
    others = {"SparseAdam", "Muon", "LBFGS"}
    return [kind for kind in known if kind is not Optimizer and kind.__name__ not in others]


def resumed(optimizer=Adam, steps: int = 3) -> tuple[Loop, dict]:
    """A loop that goes on from another's checkpoint, of which the guard's part is not loaded."""
    before = Loop(optimizer=optimizer).steps(steps)
    saved = before.guard.state_dict()
    loop = Loop(optimizer=optimizer)
    loop.model.load_state_dict(before.model.state_dict())
    loop.optimizer.load_state_dict(copy.deepcopy(before.optimizer.state_dict()))
    return loop, saved


@pytest.mark.parametrize(
    ("optimizer", "text"), [(Adam, FORGOTTEN), (MOMENTUM, "state of SGD holds a momentum_buffer, ")]
)
def test_a_forgotten_state_is_said_once(optimizer, text):
    loop, _ = resumed(optimizer)
    with pytest.warns(SafestepWarning, match=text) as caught:
        loop.steps(3)
    assert len(caught) == 1


def test_a_state_that_is_loaded_is_no_surprise():
    loop, saved = resumed()
    loop.guard.load_state_dict(saved)
    loop.steps(2)
    assert [report.step for report in loop.reports] == [3, 4]


def test_a_guard_that_joins_a_run_late_can_say_so():
    loop = Loop(optimizer=Adam, guarded=False).steps(3)
    guard = safestep.attach(loop.model, loop.optimizer)
    guard.load_state_dict(guard.state_dict())
    loop.steps(2)
    guard.detach()
    with safestep.attach(loop.model, loop.optimizer):  # had a guard before
        loop.steps(2)


@pytest.mark.parametrize("optimizer", [Adam, partial(Adam, foreach=True), partial(Adam, fused=True), MOMENTUM])
def test_a_guard_that_joins_late_needs_to_say_nothing(optimizer):
    """The steps before it were written to these very parameters: nothing was forgotten."""
    loop = Loop(optimizer=optimizer, guarded=False).steps(8)
    with safestep.attach(loop.model, loop.optimizer):
        loop.steps(2)


def test_where_nobody_can_know_the_guard_says_how_to_say_so():
    loop = Loop(optimizer=MOMENTUM, guarded=False).steps(2)
    with safestep.attach(loop.model, loop.optimizer), pytest.warns(SafestepWarning, match="all is well") as caught:
        loop.steps(2)
    assert len(caught) == 1


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_optimizer_of_torch_begins_in_silence_and_shows_that_it_has_begun(kind):
    Loop(optimizer=kind).steps(3)  # a warning would be an error
    loop, _ = resumed(kind)
    # SGD without momentum remembers nothing.
    assert bool(_seen(loop.optimizer, learnt=False)) is (kind is not SGD)


@pytest.mark.parametrize("optimizer", [AdamW, partial(MOMENTUM, weight_decay=0.1)])
def test_the_step_by_which_checkpointing_learns_the_state_is_none(optimizer):
    loop = Loop(optimizer=optimizer)
    get_state_dict(loop.model, loop.optimizer)
    loop.steps(2)
    assert [report.step for report in loop.reports] == [0, 1]


def test_a_forgotten_state_is_said_after_that_step_too():
    before = Loop(optimizer=Adam).steps(12)
    loop = Loop(optimizer=Adam)
    get_state_dict(loop.model, loop.optimizer)
    weights, moments = get_state_dict(before.model, before.optimizer)
    set_state_dict(loop.model, loop.optimizer, model_state_dict=weights, optim_state_dict=copy.deepcopy(moments))
    with pytest.warns(SafestepWarning, match=FORGOTTEN.replace("3", "12")):
        loop.step()


def test_where_the_warning_is_an_error_the_guard_goes_on_after_it():
    loop, _ = resumed()
    start = [parameter.detach().clone() for parameter in loop.model.parameters()]
    with pytest.raises(SafestepWarning):
        loop.step()
    assert all(map(torch.equal, start, loop.model.parameters()))
    loop.steps(2)
    assert len(loop.reports) == 2


def test_a_guard_attached_after_the_forward_of_its_first_step_is_told_so():
    loop = Loop(guarded=False)
    loop.backward()
    loop.guard = safestep.attach(loop.model, loop.optimizer)
    with pytest.raises(NothingToMeasureError, match=r"attached between this step's forward and optimizer\.step\(\)"):
        loop.optimizer.step()
    loop.steps(2)
    with pytest.raises(NothingToMeasureError, match=r"Does this step have a backward of its own"):
        loop.optimizer.step()
