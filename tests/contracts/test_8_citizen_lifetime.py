"""Contract 8, a citizen of torch: the guard comes and goes, and leaves everything as it was."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD

import safestep
from safestep import MeasurementError, Watch
from zoo import ALL, METHODS, RADII, ZOO, Batch, Case, Training, applied_ratio, pair
from zoo.asserts import PRECISION, assert_identical, assert_untouched


def hooks_of(training):
    """Return every hook dictionary of the model and its optimizers, as lengths."""
    owners = [*training.model.modules(), *training.optimizers]
    return [{k: len(v) for k, v in vars(o).items() if "hooks" in k and hasattr(v, "__len__")} for o in owners]


@RADII
def test_detach_restores_everything(method):
    plain, training = pair("SGD", big=True)
    guard = training.attach(method=method)
    assert hooks_of(training) != hooks_of(plain)
    training.step()
    with torch.no_grad():
        for name, p in plain.model.named_parameters():
            p.copy_(training.model.get_parameter(name))
    guard.detach()
    guard.detach()
    assert hooks_of(training) == hooks_of(plain)
    plain.index, plain.optimizers[0].state = training.index, copy.copy(plain.optimizers[0].state)
    plain.step()
    training.step()
    assert_identical(training.parameters(), plain.parameters())
    assert len(guard.history) == 1
    again = training.attach(method=method)
    training.step()
    assert again.last is not None


def test_a_guard_detached_between_backward_and_step_does_nothing():
    plain, training = pair("SGD", big=True)
    guard = training.attach()
    training.step(between=lambda _: guard.detach())
    plain.step()
    assert_untouched(training.everything(), plain.everything())


def test_the_context_manager_detaches():
    training = Training(ZOO["mlp"], ALL["SGD"])
    bare = hooks_of(training)
    with training.attach() as guard:
        training.step()
    assert hooks_of(training) == bare
    with pytest.raises(RuntimeError, match="mat1 and mat2"), training.attach():
        training.model(torch.zeros(2, 9))
    assert hooks_of(training) == bare
    assert len(guard.history) == 1


@METHODS
def test_a_guard_whose_return_value_is_dropped_still_guards(collected, method):
    training = Training(ZOO["mlp"], ALL["SGD"], big=True)
    training.attach(method=method)
    collected()
    assert applied_ratio(training, training.step) == pytest.approx(1.0, rel=PRECISION[method])


def test_the_guard_goes_with_its_optimizer(collected):
    training = Training(ZOO["mlp"], ALL["SGD"])
    bare = hooks_of(training)[:-1]
    guard = weakref.ref(training.attach())
    training.step()
    optimizer = weakref.ref(training.optimizers.pop())
    collected()
    assert optimizer() is None
    assert guard() is None
    left = [sum(hooks.values()) - sum(plain.values()) for hooks, plain in zip(hooks_of(training), bare, strict=True)]
    assert left == [1] + [0] * (len(bare) - 1)  # what says so if training goes on without the guard
    training.optimizers = ALL["SGD"].build(training.model)
    training.attach().detach()
    assert hooks_of(training)[:-1] == bare
    training.attach()
    training.step()


def test_a_guard_that_is_held_does_not_hold_model_and_optimizer_together(collected):
    """Holding the guard for its history keeps no optimizer alive."""
    training = Training(ZOO["mlp"], ALL["SGD"])
    guard = training.attach()
    training.step()
    optimizer = weakref.ref(training.optimizers.pop())
    collected()
    assert optimizer() is None
    assert len(guard.history) == 1


@RADII
def test_of_a_step_only_the_memory_for_the_next_is_kept(collected, method):
    """One copy of the parameters and a scratch of the largest one's size; no batch, no logits, no gradient."""

    def batch(index, dtype):
        return Batch((torch.randn(11, 41),), torch.zeros(11, dtype=torch.long))  # shapes that no other test has

    training = Training(Case("odd", lambda: nn.Linear(41, 37), batch), ALL["SGD"])
    guard = training.attach(method=method)
    training.step()
    training.optimizers[0].zero_grad()
    collected()
    mine = {id(t) for t in training.model.parameters()}
    sizes = {(11, 41), (11, 37), (11,), (37, 41), (37,), (37 * 41,)}
    tensors = [t for t in gc.get_objects() if issubclass(type(t), torch.Tensor) and id(t) not in mine]
    left = sorted(tuple(t.shape) for t in tensors if t.shape in sizes)
    assert left == [(37,), (37, 41), (37 * 41,)]
    assert guard.last is not None


@pytest.mark.parametrize("recipe", ["SGD", "Adam"])
def test_train_and_eval_modes_are_those_of_the_loop(recipe):
    """A model fine-tuned in eval mode is measured in eval mode, module by module."""
    training = Training(ZOO["cnn"], ALL[recipe], dtype=torch.float64)
    training.model[1].eval()  # frozen batch statistics, dropout on
    guard, flags = training.attach(policy=Watch(), method="exact"), [m.training for m in training.model.modules()]
    training.step()
    assert [m.training for m in training.model.modules()] == flags
    in_eval = Training(ZOO["cnn"], ALL[recipe], dtype=torch.float64)
    in_eval.model.eval()
    watched = in_eval.attach(policy=Watch(), method="exact")
    assert applied_ratio(in_eval, in_eval.step, mode="eval") == pytest.approx(watched.last.ratio, rel=1e-9)
    assert watched.last.ratio != guard.last.ratio


@RADII
def test_watch_costs_a_silent_loop_nothing_it_can_see(method):
    """No output, no warning, no attribute left on model, optimizer or parameters."""
    training = Training(ZOO["mlp"], ALL["SGD"])
    before = [set(vars(o)) for o in (*training.model.modules(), *training.optimizers, *training.model.parameters())]
    guard = training.attach(policy=Watch(), method=method)
    training.steps(2)
    guard.detach()
    after = [set(vars(o)) for o in (*training.model.modules(), *training.optimizers, *training.model.parameters())]
    assert after == before


def test_a_submodule_that_is_called_instead_is_an_error_not_a_guess():
    training = Training(Case("outer", lambda: nn.Sequential(ZOO["mlp"].build()), ZOO["mlp"].batch), ALL["SGD"])
    training.attach()
    batch = training.case.batch(0, training.dtype)
    F.cross_entropy(training.model[0](*batch.args), batch.labels).backward()
    with pytest.raises(MeasurementError, match="attach to the module that you call"):
        training.optimizers[0].step()


def test_optimizer_in_backward_is_refused():
    training = Training(ZOO["mlp"], ALL["SGD"])
    weight = training.model[0].weight
    training.optimizers = [SGD([weight], lr=0.1)]
    training.attach()
    weight.register_post_accumulate_grad_hook(lambda _: training.optimizers[0].step())
    start = training.parameters()
    with pytest.raises(safestep.AttachError, match="optimizer-in-backward"):
        training.backward()
    assert_identical(training.parameters(), start)
