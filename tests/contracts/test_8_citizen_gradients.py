"""Contract 8, a citizen of torch: gradients accumulated, clipped, scaled or cast, and steps with a closure."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD

from safestep import Cap, Pin, Status, Watch
from zoo import ALL, METHODS, RADII, ZOO, Recipe, Training, applied_ratio, pair
from zoo.asserts import PRECISION, assert_identical, assert_untouched

CLOSURE = Recipe("SGD-closure", SGD, 0.1, 100.0, {"momentum": 0.9}, closure=True)


# -- gradients: accumulated, clipped, scaled, cast --------------------------------------------------------------------


def halves(training, parts=2):
    """Forward and backward in micro-batches; the sum of the losses is that of the joined batch."""
    batch = training.case.batch(training.index, training.dtype)
    for optimizer in training.optimizers:
        optimizer.zero_grad()
    for x, y in zip(batch.args[0].chunk(parts), batch.labels.chunk(parts), strict=True):
        (F.cross_entropy(training.model(x), y, reduction="sum") / len(batch.labels)).backward()


@pytest.mark.parametrize("parts", [2, 3, 5])
@pytest.mark.parametrize("extra", [False, True])
def test_accumulated_micro_batches_count_together(parts, extra):
    """The last micro-batch alone would miss the worst sample whenever it is in another one."""
    joined, training = pair("SGD", dtype=torch.float64)
    whole, guard = (one.attach(policy=Watch(), method="exact") for one in (joined, training))
    for _ in range(4):
        joined.step()
        halves(training, parts)
        if extra:
            training.model(torch.randn(3, 4, dtype=torch.float64) * 100)  # discarded
        training.optimizers[0].step()
        training.index += 1
    assert guard.history["ratio"] == pytest.approx(whole.history["ratio"], rel=1e-12)
    assert guard.history["step_length"] == pytest.approx(whole.history["step_length"], rel=1e-12)


def test_accumulation_without_dropping_the_gradients():
    """zero_grad(set_to_none=False) between steps: only what backward reached since the last step counts."""
    joined, training = pair("SGD", dtype=torch.float64)
    whole, guard = (one.attach(policy=Watch(), method="exact") for one in (joined, training))
    training.backward()
    for _ in range(3):
        joined.step()
        training.optimizers[0].step()
        training.index += 1
        training.optimizers[0].zero_grad(set_to_none=False)
        batch = training.case.batch(training.index, training.dtype)
        F.cross_entropy(training.model(*batch.args), batch.labels).backward()
    assert guard.history["ratio"] == pytest.approx(whole.history["ratio"], rel=1e-12)


@pytest.mark.parametrize("clip", [nn.utils.clip_grad_norm_, nn.utils.clip_grad_value_])
def test_clipping(clip):
    def clipped(training):
        clip(training.model.parameters(), 1e-3)

    plain, training = pair("SGD", big=True)
    guard = training.attach(policy=Cap(1e6))
    for one in (plain, training):
        for _ in range(3):
            one.step(between=clipped)
    assert_untouched(training.everything(), plain.everything())
    unclipped, _ = pair("SGD", big=True)
    loose = unclipped.attach(policy=Watch())
    unclipped.step()
    assert guard.history["ratio"][0] < loose.history["ratio"][0]  # r is that of the step that was taken


@pytest.mark.parametrize("recipe", ["SGD-momentum", "SGD-fused", "Adam", "Adam-fused"])
@pytest.mark.parametrize("on_nonfinite", ["undo", "skip"])
def test_a_gradient_scaler(recipe, on_nonfinite):
    """The overflow is the scaler's to skip; only a fused optimizer is called then, and the next step is right."""

    def scaled(training, bad_at=2):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        (optimizer,) = training.optimizers
        for index in range(5):
            optimizer.zero_grad()
            batch = training.case.batch(index, training.dtype)
            loss = F.cross_entropy(training.model(*batch.args), batch.labels)
            scaler.scale(loss * (math.inf if index == bad_at else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
        return scaler.get_scale()

    plain, training = pair(recipe)
    guard = training.attach(policy=Cap(1e6), on_nonfinite=on_nonfinite)
    assert scaled(training) == scaled(plain) == 2.0**9
    assert_untouched(training.everything(), plain.everything())
    inside = [Status.INSIDE] * 2
    assert guard.history["status"] == [*inside, *([Status.STILL] if "fused" in recipe else []), *inside]


@METHODS
def test_a_gradient_scaler_caps_what_it_unscaled(method):
    training = Training(ZOO["mlp"], ALL["SGD"], big=True)
    guard = training.attach(method=method)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)

    def act():
        batch = training.case.batch(0, training.dtype)
        scaler.scale(F.cross_entropy(training.model(*batch.args), batch.labels)).backward()
        scaler.unscale_(training.optimizers[0])
        nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
        scaler.step(training.optimizers[0])
        scaler.update()

    assert applied_ratio(training, act) == pytest.approx(1.0, rel=PRECISION[method])
    assert guard.last.status is Status.CAPPED


@METHODS
@pytest.mark.parametrize("name", ["mlp", "cnn", "dot-product"])
def test_autocast_is_replayed_and_not_called_exact(name, method):
    """r under bfloat16 carries bfloat16's rounding: 2^-8 for each of a few products."""
    training = Training(ZOO[name], ALL["SGD"], big=True)
    guard = training.attach(method=method)

    def act():
        batch = training.case.batch(0, training.dtype)
        with torch.autocast("cpu", torch.bfloat16):
            loss = training.case.loss(training.model(*batch.args), batch.labels)
        loss.backward()
        training.optimizers[0].step()

    assert applied_ratio(training, act) == pytest.approx(1.0, rel=0.05)
    assert guard.last.status is Status.CAPPED
    assert not guard.last.exact


@RADII
def test_autocast_around_the_step_does_not_reach_the_replay(method):
    plain, training = pair("SGD")
    one, other = plain.attach(policy=Watch(), method=method), training.attach(policy=Watch(), method=method)
    plain.step()
    training.backward()
    with torch.autocast("cpu", torch.bfloat16):
        training.optimizers[0].step()
    assert other.last.ratio == one.last.ratio


@RADII
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.autograd.profiler.profile])
def test_the_step_may_run_in_any_mode(mode, method):
    plain, training = pair("SGD", big=True)
    one, other = plain.attach(method=method), training.attach(method=method)
    plain.step()
    training.backward()
    with mode():
        training.optimizers[0].step()
    assert other.last == one.last


# -- closures ---------------------------------------------------------------------------------------------------------


@RADII
@pytest.mark.parametrize("policy", [Watch(), Cap(1e6), Cap(0.01), Pin(0.5)], ids=str)
def test_a_closure_is_a_step_like_any_other(policy, method):
    open_loop, closed = Training(ZOO["mlp"], ALL["SGD-momentum"], big=True), Training(ZOO["mlp"], CLOSURE, big=True)
    one, other = open_loop.attach(policy=policy, method=method), closed.attach(policy=policy, method=method)
    open_loop.steps(3)
    closed.steps(3)
    assert_identical(closed.parameters(), open_loop.parameters())
    assert list(other.history) == list(one.history)


@pytest.mark.parametrize("keyword", [False, True])
def test_a_closure_may_be_positional_or_a_keyword_and_its_loss_is_returned(keyword):
    training = Training(ZOO["mlp"], CLOSURE)
    guard = training.attach(on_nonfinite="skip")
    (optimizer,) = training.optimizers
    loss = optimizer.step(closure=training.backward) if keyword else optimizer.step(training.backward)
    assert loss > 0
    assert guard.last.status is Status.INSIDE


@RADII
@pytest.mark.parametrize("recipe", [ALL["LBFGS"], ALL["LBFGS-wolfe"]], ids=str)
@pytest.mark.parametrize("policy", [Cap(1e-6), Pin(1.0)], ids=str)
def test_lbfgs_is_watched_whatever_the_policy(recipe, policy, method):
    plain, training = Training(ZOO["mlp"], recipe), Training(ZOO["mlp"], recipe)
    guard = training.attach(policy=policy, method=method)
    plain.steps(3)
    training.steps(3)
    assert_untouched(training.everything(), plain.everything())
    assert set(guard.history["status"]) == {Status.WATCHED}
    assert guard.last.would_scale != 1.0
    assert "LBFGS" in guard.last.message


def test_lbfgs_measures_the_whole_search_on_the_batch_it_saw():
    """One batch, so that every evaluation of the closure shows the samples r is over."""
    training = Training(ZOO["mlp"], ALL["LBFGS"], dtype=torch.float64)
    guard = training.attach(method="exact")
    assert guard.last is None
    ratio = applied_ratio(training, training.step)
    assert guard.last.ratio == pytest.approx(ratio, rel=1e-10)
