"""suggest_lr leaves no trace: not on the training, not on its guard, not where it fails."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import safestep
from safestep import Cap, MeasurementError, Radius, suggest_lr
from zoo import ALL, RECIPES, ZOO, Training, generators, pair, said
from zoo.asserts import assert_identical, assert_same_reports, assert_untouched
from zoo.training import gradients_stay

CASES = [(case, ALL["SGD-momentum" if case.sparse else "AdamW"]) for case in ZOO.values()]
OPTIMIZERS = [(ZOO["sparse-table" if r.name == "SparseAdam" else "mlp"], r) for r in ALL.values() if not r.closure]
EVERY = [pytest.param(case, recipe, id=f"{case}-{recipe}") for case, recipe in (*CASES, *OPTIMIZERS)]


def everything(training):
    """Return what training consists of; how often a parameter was written to is no part of it."""
    return {name: value for name, value in training.everything().items() if name != "writes"}


def identities(training):
    """Return which objects hold parameters, buffers, gradients, optimizer state and hooks."""
    model = training.model
    return {
        "parameters": [(name, id(p), p.data_ptr()) for name, p in model.named_parameters()],
        "buffers": [(name, id(b)) for name, b in model.named_buffers()],
        "state": [
            id(value)
            for optimizer in training.optimizers
            for state in optimizer.state.values()
            for value in state.values()
        ],
        "hooks": [
            {name: list(hooks.items()) for name, hooks in vars(one).items() if name.endswith("hooks")}
            for one in (*model.modules(), *training.optimizers)
        ],
        "attributes": [list(vars(one)) for one in (*model.modules(), *training.optimizers)],
    }


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize(("case", "recipe"), EVERY)
def test_everything_is_bit_for_bit_as_before(case, recipe, steps):
    training = Training(case, recipe).steps(steps)
    before, objects = everything(training), identities(training)
    with gradients_stay(training.model), said(case.warns):
        suggest_lr(training.model, training.optimizers, training.backward)
    assert_identical(everything(training), before)
    assert identities(training) == objects


@pytest.mark.parametrize(("case", "recipe"), EVERY)
def test_training_goes_on_as_if_nothing_had_been_asked(case, recipe):
    """Asked before every step, and once more between backward and step, with a guard that caps."""

    def ask(training):
        states = generators()
        suggest_lr(training.model, training.optimizers, training.backward)
        assert_identical(generators(), states)

    def run(before, between):
        training = Training(case, recipe)
        guard = training.attach(policy=Cap(0.05))
        with said(case.warns):  # the first measurements are exact
            for _ in range(2):
                before(training)
                training.step(between=between)
        assert guard.attached
        return everything(training), list(guard.history)

    plain, reports = run(lambda training: None, lambda training: None)
    asked, others = run(ask, ask)
    assert_untouched(asked, plain)
    assert_same_reports(others, reports)


def test_a_closure_that_raises_leaves_everything_as_it_was():
    training = Training(ZOO["cnn"], ALL["AdamW"]).steps(1)
    before, objects = everything(training), identities(training)

    def broken():
        training.backward()
        training.model.eval()
        training.model[0].requires_grad_(False)
        with torch.no_grad():
            training.model[0].weight.zero_()
        raise KeyError("the loader ran dry")

    with gradients_stay(training.model), pytest.raises(KeyError, match="ran dry"):
        suggest_lr(training.model, training.optimizers, broken)
    assert_identical(everything(training), before)
    assert identities(training) == objects


def test_a_closure_that_steps_is_refused_before_it_moves_anything():
    training = Training(ZOO["mlp"], ALL["AdamW"])
    guard = training.attach()
    training.steps(1)
    before, objects = everything(training), identities(training)
    with pytest.raises(MeasurementError, match=r"the closure called optimizer\.step\(\)"):
        suggest_lr(training.model, training.optimizers, training.step)
    assert_identical(everything(training), before)
    assert identities(training) == objects
    training.index = 1
    training.step()
    assert len(guard.history) == 2


def test_a_measurement_that_fails_leaves_everything_as_it_was():
    class Broken(Radius):
        def measure(self, proposal, state):
            raise MeasurementError("no way")

    training = Training(ZOO["mlp"], ALL["AdamW"]).steps(1)
    before = everything(training)
    with pytest.raises(MeasurementError, match="no way"):
        suggest_lr(training.model, training.optimizers, training.backward, radius=Broken())
    assert_identical(everything(training), before)


def test_a_guard_that_waits_for_its_second_optimizer_still_waits():
    plain, asked = pair("Muon")
    guards = [training.attach(policy=Cap(0.05)) for training in (plain, asked)]
    for training in (plain, asked):
        training.backward()
        training.optimizers[0].step()
        if training is asked:
            suggest_lr(asked.model, asked.optimizers, asked.backward)
        assert not guards[0].history or training is asked
        training.optimizers[1].step()
    assert_untouched(everything(asked), everything(plain))
    assert_same_reports(list(guards[1].history), list(guards[0].history))


def test_the_trial_steps_are_not_announced_to_a_guard():
    training = Training(ZOO["mlp"], ALL["AdamW"])
    guard = training.attach()
    suggest_lr(training.model, training.optimizers, training.backward)
    assert not guard._round.waiting
    assert not guard._round.step.start


def test_a_buffer_that_the_forward_exchanges_or_adds_is_taken_back():
    class Exchanging(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3)
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, x):
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
            self.register_buffer("latest", x.detach())
            return self.head(x)

    model = Exchanging()
    mean, optimizer = model.mean, torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(8, 4), torch.randint(0, 3, (8,))
    suggest_lr(model, optimizer, lambda: F.cross_entropy(model(x), y).backward())
    assert model.mean is mean
    assert [name for name, _ in model.named_buffers()] == ["mean"]
    assert not mean.any()


def test_a_guard_on_another_module_hears_nothing():
    """Of the wrapper that the closure calls, where suggest_lr is given what is inside."""
    inner = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3))
    outer = nn.Sequential(inner)
    optimizer = torch.optim.SGD(inner.parameters(), lr=0.1)
    x, y = torch.randn(8, 4), torch.randint(0, 3, (8,))
    guard = safestep.attach(outer, optimizer)
    assert suggest_lr(inner, optimizer, lambda: F.cross_entropy(outer(x), y).backward()).status == "found"
    assert guard._recorder.count == 0


def test_a_schedule_does_not_count_the_trial_as_a_step(recwarn):
    training = Training(ZOO["mlp"], RECIPES["SGD"])
    schedule = torch.optim.lr_scheduler.StepLR(training.optimizers[0], 1)
    step = training.optimizers[0].step
    suggest_lr(training.model, training.optimizers, training.backward)
    assert training.optimizers[0].step == step
    with pytest.warns(UserWarning, match=r"`lr_scheduler.step\(\)` before `optimizer.step\(\)`"):
        schedule.step()  # as it does where no step was taken


def test_what_a_module_keeps_of_its_own_is_restored():
    """A generator, a list that grows, a running mean in a plain tensor."""

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.chance = nn.Linear(4, 3), torch.Generator().manual_seed(1)
            self.batches, self.mean = [], torch.zeros(4)

        def forward(self, x):
            self.batches.append(len(x))
            self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
            return self.head(x + 0.1 * torch.randn(x.shape, generator=self.chance))

    model = Noisy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(8, 4), torch.randint(0, 3, (8,))
    before, mean, batches = model.chance.get_state(), model.mean, model.batches
    suggest_lr(model, optimizer, lambda: F.cross_entropy(model(x), y).backward())
    assert torch.equal(model.chance.get_state(), before)
    assert model.mean is mean
    assert not mean.any()
    assert model.batches is batches == []
