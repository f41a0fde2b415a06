"""Contract 8, a citizen of torch: learning rates, groups and schedulers are the user's, never the guard's."""

from __future__ import annotations

import pytest
import torch
from torch.optim import SGD, Adam, lr_scheduler

from safestep import Cap, Pin, Status, Watch
from zoo import ALL, METHODS, ZOO, Recipe, Training, applied_ratio, pair, recipes_for
from zoo.asserts import PRECISION, assert_identical, assert_untouched

EVERY = pytest.mark.parametrize("recipe", recipes_for(ZOO["mlp"]), ids=str)


class Plateau:
    def __init__(self, optimizer):
        self.scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)

    def step(self):
        self.scheduler.step(1.0)

    def state_dict(self):
        return self.scheduler.state_dict()


SCHEDULERS = {
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    "one-cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=3.0, total_steps=6),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=10),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, 2), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=2), lr_scheduler.StepLR(o, 1)], milestones=[2]
    ),
    "plateau": Plateau,
}


def scheduled(training, make, count=5):
    (optimizer,) = training.optimizers
    scheduler, rates = make(optimizer), []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        training.step()
        scheduler.step()
    return rates, scheduler.state_dict()


@pytest.mark.parametrize("attach_first", [True, False])
@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS.keys())
@pytest.mark.parametrize("recipe", ["SGD-momentum", "Adam"])
def test_schedulers_do_the_same_with_a_guard(recipe, make, attach_first):
    plain, training = pair(recipe)
    rates, state = scheduled(plain, make)
    guards = []

    def made(optimizer):
        if attach_first:
            guards.append(training.attach(policy=Watch()))
        scheduler = make(optimizer)
        if not attach_first:
            guards.append(training.attach(policy=Watch()))
        return scheduler

    assert scheduled(training, made) == (rates, state)
    assert_untouched(training.everything(), plain.everything())
    assert [report.lrs for report in guards[0].history] == [(rate,) for rate in rates]


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS.keys())
def test_a_scheduled_rate_is_not_scaled_with_the_step(make):
    """The cap acts on parameters alone: the same rates, schedules and groups although every step is scaled."""
    plain, training = pair(big=True)
    rates, state = scheduled(plain, make)
    guard = training.attach(policy=Cap(0.01))
    assert scheduled(training, make) == (rates, state)
    assert set(guard.history["status"]) == {Status.CAPPED}
    assert [r.effective_lr for r in guard.history] == [
        r.scale * rate for r, rate in zip(guard.history, rates, strict=True)
    ]


@EVERY
@pytest.mark.parametrize("policy", [Cap(0.01), Pin(1.0)], ids=str)
def test_rates_groups_and_state_are_never_written(recipe, policy):
    """After one scaled step all but the parameters is what the plain step left."""
    plain, training = Training(ZOO["mlp"], recipe, big=True), Training(ZOO["mlp"], recipe, big=True)
    guard = training.attach(policy=policy)
    plain.step()
    training.step()
    assert guard.last.scale != 1.0 or recipe.closure
    for part in ("states", "groups", "gradients", "buffers", "generators", "requires_grad", "attributes"):
        assert_identical(training.everything()[part], plain.everything()[part], part)


def test_several_groups_and_one_more_after_attach():
    def train(guarded):
        training = Training(ZOO["mlp"], ALL["Adam"])
        first, last = training.model[0], training.model[-1]
        training.optimizers = [Adam([{"params": first.parameters()}, {"params": [last.weight], "lr": 0.1}], lr=0.01)]
        guard = training.attach(policy=Watch()) if guarded else None
        training.steps(2)
        training.optimizers[0].add_param_group({"params": [last.bias], "lr": 0.5})
        return training.steps(2), guard

    (plain, _), (training, guard) = train(guarded=False), train(guarded=True)
    assert_untouched(training.everything(), plain.everything())
    assert [len(report.lrs) for report in guard.history] == [2, 2, 3, 3]


@METHODS
def test_a_group_added_after_attach_is_kept_inside_too(method):
    training = Training(ZOO["mlp"], ALL["SGD"])
    first, last = training.model[0], training.model[-1]
    training.optimizers = [SGD(first.parameters(), lr=1e-3)]
    guard = training.attach(method=method)
    training.optimizers[0].add_param_group({"params": last.parameters(), "lr": 1e4})
    assert applied_ratio(training, training.step) == pytest.approx(1.0, rel=PRECISION[method])
    assert guard.last.status is Status.CAPPED


def test_frozen_and_thawed_between_steps():
    plain, training = pair("Adam")
    guard = training.attach(policy=Cap(1e6))
    for one in (plain, training):
        one.steps(1)
        one.model[0].requires_grad_(False)
        one.steps(1)
        one.model[0].requires_grad_(True)
        one.steps(1)
    assert_untouched(training.everything(), plain.everything())
    assert len(guard.history) == 3


def test_a_rate_of_zero_is_a_step_of_the_trainer_that_stands_still():
    training = Training(ZOO["mlp"], Recipe("still", SGD, 0.0, 0.0))
    guard = training.attach()
    training.steps(2)
    assert [report.status for report in guard.history] == [Status.STILL] * 2
    training.optimizers[0].param_groups[0]["lr"] = 0.1
    training.step()
    assert guard.last.step == 2


def test_a_rate_that_is_a_tensor():
    training = Training(ZOO["mlp"], Recipe("tensor", Adam, torch.tensor(0.01), torch.tensor(0.01)))
    guard = training.attach()
    training.step()
    assert guard.last.lrs == (pytest.approx(0.01),)
