"""A guard that does not act, while somebody trains, says so; one guard a model."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.optim import SGD

import safestep
from safestep import AttachError, SafestepWarning, Watch
from safestep.errors import DetachedError
from safestep.guard.silence import PATIENCE
from zoo.loop import Loop


def train(loop: Loop, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        loop.backward()
        optimizer.step()
        loop.index += 1


def replaced(*, held: bool) -> tuple[Loop, SGD]:
    """A loop whose optimizer was made anew, as after unfreezing."""
    loop = Loop().steps(2)
    kept = loop.guard if held else None
    loop.guard = kept
    loop.optimizer = SGD(loop.model.parameters(), lr=1e-3)
    gc.collect()
    return loop, loop.optimizer


@pytest.mark.parametrize("held", [True, False])
def test_a_guard_whose_optimizer_was_replaced_says_once_that_it_is_silent(held):
    loop, optimizer = replaced(held=held)
    assert not held or not loop.guard.attached
    with pytest.warns(SafestepWarning, match=r"made anew.*safestep\.attach\(model, optimizer\)") as caught:
        train(loop, optimizer, 3 * PATIENCE)
    assert len(caught) == 1
    assert not loop.model._forward_pre_hooks


def test_the_tripwire_goes_with_a_new_guard_and_copies_carry_none_that_acts():
    loop, optimizer = replaced(held=False)
    assert len(loop.model._forward_pre_hooks) == 1
    twin = pickle.loads(pickle.dumps(copy.deepcopy(loop.model)))
    for _ in range(2 * PATIENCE):
        with torch.no_grad():
            next(twin.parameters()).add_(1e-3)
        twin(torch.zeros(2, 4))  # a warning would be an error
    safestep.attach(loop.model, optimizer).detach()
    assert not loop.model._forward_pre_hooks


def test_evaluation_and_a_detached_guard_trip_nothing():
    loop, _ = replaced(held=False)
    weight = next(loop.model.parameters())
    for mode, grad in ((False, True), (True, False)):
        loop.model.train(mode)
        for _ in range(2 * PATIENCE):
            with torch.no_grad():
                weight.add_(1e-4)
            with torch.set_grad_enabled(grad):
                loop.model(torch.zeros(2, 4))
    detached = Loop()
    detached.guard.detach()
    detached.optimizer = SGD(detached.model.parameters(), lr=1e-3)
    gc.collect()
    train(detached, detached.optimizer, 2 * PATIENCE)


def test_a_guard_on_an_optimizer_that_never_steps_says_so_once():
    loop = Loop()
    own = SGD(loop.model.parameters(), lr=1e-3)  # a trainer's
    with pytest.warns(SafestepWarning, match=r"no so far.*attach\(model, the optimizer that steps\)") as caught:
        train(loop, own, 3 * PATIENCE)
    assert len(caught) == 1
    assert not loop.reports


def test_accumulation_attacks_and_a_restart_are_no_foreign_training():
    loop = Loop()
    loop.model.load_state_dict(loop.model.state_dict())
    for _ in range(3 * PATIENCE):
        x, y = loop.batch()
        nn.functional.cross_entropy(loop.model(x), y).backward()  # accumulation
    loop.step()
    for _ in range(3 * PATIENCE):
        loop.backward()  # gradients that are zeroed: a probe, an attack
    loop.step()
    assert len(loop.reports) == 2


# -- one guard a model ------------------------------------------------------------------------------------------------


def test_two_guards_that_would_see_each_others_steps_are_refused():
    body, first, second = nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(4, 3)
    one, two = nn.Sequential(body, first), nn.Sequential(body, second)
    optimizers = SGD(one.parameters(), lr=0.1), SGD(second.parameters(), lr=0.1)
    guard = safestep.attach(one, optimizers[0])
    with pytest.raises(AttachError, match=r"give both optimizers to one guard, attach\(model, \[a, b\]\)"):
        safestep.attach(two, optimizers[1])  # the first moves the body, and the second's logits with it
    with pytest.raises(AttachError, match="give both optimizers"):
        safestep.attach(nn.DataParallel(one), SGD(first.parameters(), lr=0.1), policy=Watch())
    guard.detach()
    safestep.attach(two, optimizers[1])


def test_models_without_a_common_trained_parameter_have_a_guard_each():
    """As generator and discriminator; a frozen body may be shared."""
    body = nn.Linear(4, 4).requires_grad_(False)
    models = [nn.Sequential(body, nn.Linear(4, 3)) for _ in range(2)]
    optimizers = [SGD(model.parameters(), lr=0.1) for model in models]
    guards = [safestep.attach(*pair) for pair in zip(models, optimizers, strict=True)]
    assert all(guard.attached for guard in guards)


# -- copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "save"])
def test_a_guard_kept_on_the_module_is_copied_as_a_stub(way, tmp_path):
    loop = Loop().steps(2)
    loop.model.guard = loop.guard
    if way == "pickle":
        twin = pickle.loads(pickle.dumps(loop.model))
    elif way == "deepcopy":
        twin = copy.deepcopy(loop.model)
    else:
        torch.save(loop.model, tmp_path / "model.pt")
        twin = torch.load(tmp_path / "model.pt", weights_only=False)
    assert "2 steps, attached" in repr(twin.guard)
    assert "detached, attach() makes a new one" in repr(twin.guard)
    assert not twin.guard.attached
    twin.guard.detach()
    with pytest.raises(DetachedError, match=r"no 'history' here.*safestep\.attach"):
        _ = twin.guard.history
    assert repr(copy.copy(twin.guard)) == repr(twin.guard)
    assert not hasattr(twin.guard, "last")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        safestep.attach(twin, SGD(twin.parameters(), lr=0.1))
    assert loop.guard.attached
