"""Contract 7: a run stopped and resumed equals the run that was not, bit for bit; copies of its parts are free."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch.nn import functional as F

from safestep import (
    Cap,
    CurvatureRadius,
    KLRadius,
    Pin,
    SecantCurvature,
    SoftmaxRadius,
    Status,
    Throttle,
    Tightest,
    Watch,
)
from zoo import ALL, ZOO, Training, crossed, generators, said, set_generators
from zoo.asserts import assert_identical, assert_same_reports, assert_untouched


def rising(step):
    """A target that follows the step: a guard that forgot its count would take another."""
    return 0.02 * (1 + step)


POLICIES = {"cap": Cap(rising), "pin": Pin(rising), "watch": Watch(Cap(rising))}
BEFORE, AFTER = 3, 3
PAIRS = [
    pytest.param(case, recipe, id=f"{case}-{recipe}")
    for case in ZOO.values()
    for recipe in ALL.values()
    if not recipe.cannot_train(case) and (case.name in {"mlp", "sparse-table"} or recipe.name == "Adam")
]


def through_a_file(value):
    """Save and load as a user does who trusts no pickle."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def checkpoint(training, guard):
    return through_a_file(
        {
            "model": training.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in training.optimizers],
            "guard": guard.state_dict(),
        }
    )


def resumed(case, recipe, saved, policy, **options):
    """A new process would do this: build, load, attach, load."""
    training = Training(case, recipe, seed=77)  # other parameters, all overwritten
    training.model.load_state_dict(saved["model"])
    for optimizer, state in zip(training.optimizers, saved["optimizers"], strict=True):
        optimizer.load_state_dict(state)
    guard = training.attach(policy=policy, **options)
    guard.load_state_dict(saved["guard"])
    training.index = BEFORE
    return training, guard


def test_cases_without_state_of_their_own():
    """Counters on a module are no part of its state_dict: such models cannot be resumed by anyone."""
    assert [case.name for case in ZOO.values() if hasattr(case.build(), "calls")] == ["chancy"]


@pytest.mark.parametrize(
    ("case", "recipe", "policy", "method"),
    [
        pytest.param(*pair.values, POLICIES[policy], method, id=f"{pair.id}-{policy}-{method}")
        for pair, policy, method in crossed(PAIRS, POLICIES, ["tiered", "exact", "curvature"])
    ],
)
def test_stopped_and_resumed_is_the_run_that_was_not(case, recipe, policy, method):
    whole = Training(case, recipe)
    guard = whole.attach(policy=policy, method=method)
    with said(case.untaped if method != "tiered" else ""):
        whole.steps(BEFORE)
    saved, chance = checkpoint(whole, guard), generators()
    whole.steps(AFTER)
    reports = [report for report in guard.history if report.step >= saved["guard"]["step"]]

    training, guard = resumed(case, recipe, saved, policy, method=method)
    set_generators(chance)
    training.steps(AFTER)  # says nothing again: what the guard learned of the model came with it
    if case.name == "chancy":
        training.model.calls += BEFORE
    resumed_to, uninterrupted = training.everything(), whole.everything()
    del resumed_to["writes"], uninterrupted["writes"]  # loading writes too
    assert_untouched(resumed_to, uninterrupted)
    assert_same_reports(list(guard.history), reports)


THROTTLES = {
    "order-1": (Throttle(order=1), CurvatureRadius()),
    "order-2": (Throttle(order=2), CurvatureRadius()),
    "secant": (Throttle(), SecantCurvature()),
    "secant-order-2": (Throttle(order=2), SecantCurvature()),
    "kl": (Cap(1.0), KLRadius(1e-4)),
    "tightest": (Cap(1.0), Tightest({SoftmaxRadius(): 0.05, CurvatureRadius(): 0.2})),
}


@pytest.mark.parametrize(("policy", "radius"), THROTTLES.values(), ids=THROTTLES.keys())
@pytest.mark.parametrize("recipe", ["SGD", "Adam"])
def test_what_a_throttle_remembers_is_resumed(recipe, policy, radius):
    """Alpha, its velocity, the last gradient and parameters: through a file, bit for bit."""
    case, recipe = ZOO["mlp"], ALL[recipe]
    whole = Training(case, recipe)
    guard = whole.attach(policy=policy, radius=radius)
    whole.steps(BEFORE)
    saved = checkpoint(whole, guard)
    whole.steps(AFTER)
    training, again = resumed(case, recipe, saved, policy, radius=radius)
    training.steps(AFTER)
    resumed_to, uninterrupted = training.everything(), whole.everything()
    for one in (resumed_to, uninterrupted):
        del one["writes"], one["generators"]
    assert_untouched(resumed_to, uninterrupted)
    assert_same_reports(list(again.history), list(guard.history)[BEFORE:])


def test_the_resumed_run_was_scaled():
    """The runs above are not equal for want of capping."""
    training = Training(ZOO["mlp"], ALL["Adam"])
    guard = training.attach(policy=POLICIES["cap"])
    training.steps(BEFORE + AFTER)
    assert {Status.CAPPED, Status.INSIDE} == set(guard.history["status"])
    assert guard.history["target"] == [rising(step) for step in range(BEFORE + AFTER)]


def test_the_count_of_undone_steps_is_resumed():
    def poison(training):
        next(training.model.parameters()).grad.view(-1)[0] = torch.nan

    training = Training(ZOO["mlp"], ALL["SGD"])
    guard = training.attach()
    training.step(between=poison)
    training.step(between=poison)
    again, guard = resumed(ZOO["mlp"], ALL["SGD"], checkpoint(training, guard), None)
    with said("3 steps in a row"):
        again.step(between=poison)


def test_the_step_goes_on_counting_in_the_log(tmp_path):
    def train(training, guard):
        training.steps(2)
        return checkpoint(training, guard)

    training = Training(ZOO["mlp"], ALL["Adam"])
    saved = train(training, training.attach(log=tmp_path / "log.jsonl"))
    again, guard = resumed(ZOO["mlp"], ALL["Adam"], saved, None, log=tmp_path / "log.jsonl")
    train(again, guard)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == [f'{{"step": {step}' for step in range(4)]


# -- states that do not fit -------------------------------------------------------------------------------------------


def attached(**options):
    training = Training(ZOO["mlp"], ALL["SGD"])
    return training.attach(**options)


def test_a_state_of_another_policy_is_refused():
    with pytest.raises(ValueError, match="policy Pin, this guard has Cap"):
        attached().load_state_dict(attached(policy=Pin(1.0)).state_dict())


def test_a_state_of_another_version_is_refused():
    guard = attached()
    with pytest.raises(ValueError, match="version 99"):
        guard.load_state_dict({**guard.state_dict(), "version": 99})


def test_something_else_is_refused():
    with pytest.raises(ValueError, match="not the state of a guard"):
        attached().load_state_dict({"model": {}})


def test_a_refused_state_changes_nothing():
    guard = attached()
    before = guard.state_dict()
    with pytest.raises(ValueError, match="version"):
        guard.load_state_dict({**before, "version": 99, "step": 5})
    assert guard.state_dict() == before


# -- copies -----------------------------------------------------------------------------------------------------------


def by_deepcopy(pair):
    return copy.deepcopy(pair)


def by_pickle(pair):
    return pickle.loads(pickle.dumps(pair))


def by_torch(pair):
    file = io.BytesIO()
    torch.save(pair, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = pytest.mark.parametrize("copied", [by_deepcopy, by_pickle, by_torch])


def step(model, optimizer):
    batch = ZOO["mlp"].batch(0, torch.float32)
    optimizer.zero_grad()
    F.cross_entropy(model(*batch.args), batch.labels).backward()
    optimizer.step()


@COPIES
def test_copies_of_model_and_optimizer_are_unguarded(copied):
    training = Training(ZOO["mlp"], ALL["SGD"], big=True)
    guard = training.attach()
    training.step()
    model, optimizer = copied((training.model, training.optimizers[0]))
    plain_model, plain = by_deepcopy((training.model, training.optimizers[0]))
    guard.detach()
    step(model, optimizer)
    step(plain_model, plain)
    assert len(guard.history) == 1
    assert_identical(dict(model.state_dict()), dict(plain_model.state_dict()))
    moved = max((p - q).abs().max() for p, q in zip(model.parameters(), training.model.parameters(), strict=True))
    assert moved > 1  # far outside: nothing held it


@COPIES
def test_a_copy_does_not_disturb_the_guarded_training(copied):
    plain, training = Training(ZOO["mlp"], ALL["Adam"]), Training(ZOO["mlp"], ALL["Adam"])
    guard = training.attach(policy=Cap(1e6))
    training.steps(2)
    training.backward()
    pair = copied((training.model, training.optimizers[0]))  # between backward and step
    step(*pair)
    training.optimizers[0].step()
    training.index += 1
    training.steps(1)
    plain.steps(4)
    assert_identical(training.parameters(), plain.parameters())
    assert len(guard.history) == 4


@COPIES
def test_a_copy_can_be_guarded_itself(copied):
    training = Training(ZOO["mlp"], ALL["SGD"], big=True)
    guard = training.attach()
    model, optimizer = copied((training.model, training.optimizers[0]))
    other = training.__class__(ZOO["mlp"], ALL["SGD"])
    other.model, other.optimizers = model, [optimizer]
    second = other.attach(policy=Cap(0.1))
    step(model, optimizer)
    training.step()
    assert guard.last.applied_ratio == pytest.approx(1.0)
    assert second.last.applied_ratio == pytest.approx(0.1)


def test_the_state_of_an_optimizer_holds_nothing_of_the_guard():
    plain, training = Training(ZOO["mlp"], ALL["Adam"]).steps(2), Training(ZOO["mlp"], ALL["Adam"])
    training.attach(radius=SoftmaxRadius(), policy=Cap(1e6))
    training.steps(2)
    assert_identical(training.optimizers[0].state_dict(), plain.optimizers[0].state_dict())
    assert_identical(dict(training.model.state_dict()), dict(plain.model.state_dict()))
