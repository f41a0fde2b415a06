"""Contract 6, never silently unsafe: a step that is not finite is undone, or kept from happening, and reported."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch.optim import SGD, Optimizer

from safestep import Cap, Pin, PoisonedOptimizerError, SafestepWarning, Status, Watch
from zoo import ALL, RADII, ZOO, Batch, Case, Recipe, Training, poison, said
from zoo.asserts import assert_identical, assert_untouched

BAD = pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
PAIRS = [
    pytest.param(ZOO["sparse-table" if recipe.cannot_train(ZOO["mlp"]) else "mlp"], recipe, id=recipe.name)
    for recipe in ALL.values()
]
OPEN_LOOP = [pair for pair in PAIRS if not pair.values[1].closure]


def is_finite(value):
    if isinstance(value, torch.Tensor):
        return bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    return all(map(is_finite, value)) if isinstance(value, list) else True


def quiet():
    return warnings.catch_warnings(action="ignore", category=SafestepWarning)


# -- steps that are not finite ----------------------------------------------------------------------------------------


@BAD
@pytest.mark.parametrize("policy", [Cap(1.0), Pin(1.0), Cap(math.inf)], ids=str)
@pytest.mark.parametrize(("case", "recipe"), PAIRS)
def test_a_step_that_is_not_finite_is_undone(case, recipe, policy, bad):
    plain = Training(case, recipe)
    plain.step(between=lambda training: poison(training, bad))
    training = Training(case, recipe)
    guard, start = training.attach(policy=policy), training.parameters()
    with quiet():
        training.step(between=lambda training: poison(training, bad))
    assert is_finite(training.parameters())
    if is_finite(plain.parameters()):  # Rprop sees the sign of an infinite gradient only, LBFGS may not move
        assert guard.last is None or guard.last.status is not Status.UNDONE
        return
    assert_identical(training.parameters(), start)
    assert guard.last.status is Status.UNDONE
    assert (guard.last.scale, guard.last.applied_ratio, guard.last.applied_length) == (0.0, 0.0, 0.0)
    assert not math.isfinite(guard.last.ratio)
    assert "not finite" in guard.last.message


def after_a_bad_step(case, recipe):
    """Return a plain training after a good and a bad step, put back by hand, and whether the bad step moved to nan."""
    training = Training(case, recipe).steps(1)
    start = training.parameters()
    training.step(between=poison)
    bad = not is_finite(training.parameters())
    with torch.no_grad():
        for name, p in training.model.named_parameters():
            p.copy_(start[name])
    return training, bad


@pytest.mark.parametrize(("case", "recipe"), PAIRS)
def test_a_poisoned_optimizer_is_named_and_then_an_error(case, recipe):
    """One bad gradient: an optimizer that gets over it trains on; the state of one that does not is named, refused."""
    plain, bad = after_a_bad_step(case, recipe)
    poisoned = not is_finite(plain.everything()["states"])
    recovers = is_finite(plain.steps(1).parameters())
    training = Training(case, recipe)
    guard = training.attach()
    training.step()
    start = training.parameters()
    with said("state is not finite" if bad and poisoned else ""):
        training.step(between=poison)
    assert (guard.last.status is Status.UNDONE) is bad
    if recovers:
        training.steps(2)
        assert Status.UNDONE not in guard.history["status"][2:]
        return
    assert poisoned
    training.step()
    with pytest.raises(PoisonedOptimizerError, match=r"3 steps in a row.*\.state\['.*'\]\['.*'\]"):
        training.step()
    assert_identical(training.parameters(), start)
    assert guard.history["status"][1:] == [Status.UNDONE] * 3


def test_the_optimizers_that_never_get_over_a_nan():
    """Without this the test above could pass by calling every optimizer recovered."""
    frozen = {
        pair.values[1].name for pair in PAIRS if not is_finite(after_a_bad_step(*pair.values)[0].steps(1).parameters())
    }
    assert frozen >= {
        "Adam",
        "AdamW",
        "NAdam",
        "RAdam",
        "Adamax",
        "Adagrad",
        "RMSprop",
        "Muon",
        "SGD-momentum",
        "SparseAdam",
    }
    assert frozen.isdisjoint({"SGD", "ASGD", "Rprop", "LBFGS"})


def test_adams_buffer_is_named():
    training = Training(ZOO["mlp"], ALL["Adam"])
    training.attach()
    with pytest.warns(SafestepWarning, match=r"Adam\.state\['0\.weight'\]\['exp_avg'\]"):
        training.step(between=poison)
    training.step()
    with pytest.raises(PoisonedOptimizerError, match=r"Adam\.state\['0\.weight'\]\['exp_avg'\].*on_nonfinite='skip'"):
        training.step()


def test_gradients_that_stay_bad_are_said_though_the_state_is_clean():
    training = Training(ZOO["mlp"], ALL["SGD"])
    guard = training.attach()
    training.step(between=poison)
    training.step(between=poison)
    with pytest.warns(SafestepWarning, match="3 steps in a row were undone though"):
        training.step(between=poison)
    training.step()
    assert guard.last.status is Status.INSIDE


class Writes(Optimizer):
    """A fake optimizer that writes a number into one element."""

    def __init__(self, parameters, value):
        super().__init__(parameters, {})
        self.value = value

    @torch.no_grad()
    def step(self, closure=None):
        self.param_groups[0]["params"][0].view(-1)[0] = self.value


@BAD
@pytest.mark.parametrize("on_nonfinite", ["undo", "skip"])
def test_a_step_from_good_gradients_to_a_bad_place_is_undone(bad, on_nonfinite):
    training = Training(ZOO["mlp"], ALL["SGD"])
    training.optimizers = [Writes(training.model.parameters(), bad)]
    guard, start = training.attach(on_nonfinite=on_nonfinite), training.parameters()
    training.step()
    assert guard.last.status is Status.UNDONE
    assert_identical(training.parameters(), start)


@BAD
@RADII
@pytest.mark.parametrize("policy", [Cap(1.0), Pin(1.0)], ids=str)
def test_bad_logits_undo_the_step(policy, method, bad):
    """The displacement is finite, the logits and their derivative are not."""

    def batch(index, dtype):
        good = ZOO["mlp"].batch(index, dtype)
        return Batch((good.args[0].index_fill(0, torch.tensor([1]), bad),), good.labels)

    training = Training(Case("bad", ZOO["mlp"].build, batch), ALL["SGD"])
    training.optimizers = [Writes(training.model.parameters(), 0.5)]
    guard, start = training.attach(policy=policy, method=method), training.parameters()
    training.step()
    assert guard.last.status is Status.UNDONE
    assert guard.last.message == "r is not finite"
    assert_identical(training.parameters(), start)


@BAD
def test_watched_a_bad_step_stands_and_is_reported(bad):
    plain, training = Training(ZOO["mlp"], ALL["Adam"]), Training(ZOO["mlp"], ALL["Adam"])
    guard = training.attach(policy=Watch(Cap(1.0)))
    for one in (plain, training):
        for _ in range(5):
            one.step(between=lambda training: poison(training, bad))
    assert_untouched(training.everything(), plain.everything())
    assert [report.status for report in guard.history] == [Status.NONFINITE] * 5
    assert {(report.scale, report.would_scale) for report in guard.history} == {(1.0, 0.0)}


# -- skipping ---------------------------------------------------------------------------------------------------------


@BAD
@pytest.mark.parametrize("warm_up", [0, 2])
@pytest.mark.parametrize(("case", "recipe"), OPEN_LOOP)
def test_skip_keeps_the_optimizer_from_stepping(case, recipe, warm_up, bad):
    """Parameters, optimizer.state and .grad are bit for bit what they were, and later training as if never asked."""
    plain, training = Training(case, recipe).steps(warm_up), Training(case, recipe)
    guard = training.attach(on_nonfinite="skip", policy=Cap(1e6))
    training.steps(warm_up)
    training.backward()
    poison(training, bad)
    before, gradients = training.everything(), [p.grad for p in training.model.parameters()]
    for optimizer in training.optimizers:
        optimizer.step()
    assert_untouched(training.everything(), before)
    assert all(p.grad is gradient for p, gradient in zip(training.model.parameters(), gradients, strict=True))
    assert guard.last.status is Status.SKIPPED
    assert len(guard.history) == warm_up + 1
    plain.steps(2)
    training.steps(2)
    assert_untouched(training.everything(), plain.everything())


def test_skip_with_one_bad_optimizer_of_two_skips_both():
    training = Training(ZOO["mlp"], ALL["Muon"])
    guard = training.attach(on_nonfinite="skip")
    training.backward()
    training.model[-1].bias.grad[0] = math.nan  # the second optimizer's; the first steps before it
    before = training.everything()
    for optimizer in training.optimizers:
        optimizer.step()
    assert_untouched(training.everything(), before)
    assert [report.status for report in guard.history] == [Status.SKIPPED]


def test_skip_with_a_closure_undoes_instead():
    training = Training(ZOO["mlp"], Recipe("closure", SGD, 0.1, 1.0, closure=True))
    guard, start = training.attach(on_nonfinite="skip"), training.parameters()
    training.step(between=poison)
    assert guard.last.status is Status.UNDONE
    assert_identical(training.parameters(), start)
