"""Contract 8, a citizen of torch: several optimizers, steps inside steps, steps that fail."""

from __future__ import annotations

import pytest
import torch
from torch.optim import SGD, Adam

from safestep import Cap, Status, Watch
from zoo import ALL, METHODS, RADII, ZOO, Recipe, Scene, Training, applied_ratio, pair, twin_ratio
from zoo.asserts import PRECISION, assert_identical, assert_untouched

CLOSURE = Recipe("SGD-closure", SGD, 0.1, 100.0, {"momentum": 0.9}, closure=True)


# -- several optimizers -----------------------------------------------------------------------------------------------


def two_optimizers(training):
    first, last = training.model[0], training.model[-1]
    training.optimizers = [SGD(first.parameters(), lr=30.0, momentum=0.9), Adam(last.parameters(), lr=1.0)]
    return training


@RADII
def test_the_guard_acts_after_the_last_of_two_optimizers(method):
    training = two_optimizers(Training(ZOO["mlp"], ALL["SGD"]))
    guard = training.attach(method=method)
    first, last = training.optimizers
    training.backward()
    start = training.parameters()
    first.step()
    assert guard.last is None
    between = training.parameters()
    assert not torch.equal(between["0.weight"], start["0.weight"])  # not scaled yet
    last.step()
    assert guard.last.status is Status.CAPPED
    assert len(guard.history) == 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_optimizers_may_step_in_any_order(order):
    one, other = two_optimizers(Training(ZOO["mlp"], ALL["SGD"])), two_optimizers(Training(ZOO["mlp"], ALL["SGD"]))
    guards = [one.attach(), other.attach()]
    one.step()
    other.backward()
    for index in order:
        other.optimizers[index].step()
    assert_identical(other.parameters(), one.parameters())
    assert guards[0].last == guards[1].last


def test_one_of_two_optimizers_steps_twice():
    """The first round ends where it steps again, and is measured on the batch it was made on."""
    training = two_optimizers(Training(ZOO["mlp"], ALL["SGD"], dtype=torch.float64))
    guard = training.attach(policy=Watch(), method="exact")
    alone, other = training.optimizers
    scenes, starts = [], []
    for _ in range(2):
        scenes.append(Scene.of(training))
        starts.append(training.parameters())
        training.backward()
        alone.step()
        training.index += 1
    moved = [{n: b[n] - a[n] for n in a} for a, b in ((starts[0], starts[1]), (starts[1], training.parameters()))]
    assert len(guard.history) == 1
    assert guard.last.ratio == pytest.approx(twin_ratio(training, scenes[0], moved[0]), rel=1e-10)
    before = training.parameters()
    other.step()
    assert len(guard.history) == 2
    moved = {n: p - starts[1][n] for n, p in training.parameters().items()}
    assert before.keys() == moved.keys()
    assert guard.last.ratio == pytest.approx(twin_ratio(training, scenes[1], moved), rel=1e-10)


def test_two_optimizers_stepping_in_turn_with_forwards_of_their_own():
    """As in alternating training: forward, backward, step of one; forward, backward, step of the other."""
    training = two_optimizers(Training(ZOO["mlp"], ALL["SGD"], dtype=torch.float64))
    guard = training.attach(policy=Cap(1e6))
    for index in range(4):
        training.backward()
        training.optimizers[index % 2].step()
        training.index += 1
    guard.detach()
    # Each is judged before the forward of the other, where its parameters would be used.
    assert [report.status for report in guard.history] == [Status.INSIDE] * 4


def test_an_optimizer_that_is_gone_does_not_hold_the_round_open(collected):
    training = two_optimizers(Training(ZOO["mlp"], ALL["SGD"]))
    guard = training.attach()
    training.step()
    training.optimizers.pop()
    collected()
    training.step()
    assert len(guard.history) == 2


# -- steps inside steps, steps that fail ------------------------------------------------------------------------------


class Subclass(SGD):
    """A step around the step of the base class."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(0.99)  # moves on after the inner step: the displacement is that of the whole
        return loss


def test_a_subclass_that_calls_super_is_one_step():
    plain, training = pair("SGD")
    for one in (plain, training):
        one.optimizers = [Subclass(one.model.parameters(), lr=0.1)]
    guard = training.attach(policy=Cap(1e6), method="exact")
    plain.steps(3)
    ratio = applied_ratio(training, training.step)
    training.steps(2)
    assert_untouched(training.everything(), plain.everything())
    assert len(guard.history) == 3
    assert guard.history["ratio"][0] == pytest.approx(ratio, rel=1e-5)


class Fails(SGD):
    """A step that raises when told to, half way."""

    fail = False

    def step(self, closure=None):
        if self.fail:
            with torch.no_grad():
                self.param_groups[0]["params"][0].add_(1.0)
            raise RuntimeError("half way")
        return super().step(closure)


@METHODS
def test_a_step_that_raised_is_recovered_from(method):
    training = Training(ZOO["mlp"], ALL["SGD"])
    training.optimizers = [Fails(training.model.parameters(), lr=100.0)]
    guard = training.attach(method=method)
    Fails.fail = True
    with pytest.raises(RuntimeError, match="half way"):
        training.step()
    Fails.fail = False
    assert guard.last is None
    assert applied_ratio(training, training.step) == pytest.approx(
        1.0, rel=PRECISION[method]
    )  # from where the step began
    assert len(guard.history) == 1


@METHODS
def test_a_closure_that_raised_is_recovered_from(method):
    training = Training(ZOO["mlp"], CLOSURE, big=True)
    guard = training.attach(method=method)

    def broken():
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        training.optimizers[0].step(broken)
    assert applied_ratio(training, training.step) == pytest.approx(1.0, rel=PRECISION[method])
    assert len(guard.history) == 1


@METHODS
def test_a_forward_that_raised_is_recovered_from(method):
    training = Training(ZOO["mlp"], ALL["SGD"], big=True)
    guard = training.attach(method=method)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        training.model(torch.zeros(2, 9))
    assert applied_ratio(training, training.step) == pytest.approx(1.0, rel=PRECISION[method])
    assert len(guard.history) == 1


def test_other_step_hooks_keep_working():
    training, calls = Training(ZOO["mlp"], ALL["SGD"]), []
    (optimizer,) = training.optimizers
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    training.attach()
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    training.steps(2)
    assert calls == ["before", "after"] * 2
