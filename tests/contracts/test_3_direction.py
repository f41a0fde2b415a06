"""Contract 3: the applied step is s p, with one s for every parameter and every optimizer of the step."""

from __future__ import annotations

import math
from functools import lru_cache

import pytest
import torch
from torch.optim import SGD, Adam, RMSprop

from safestep import Cap, Pin, Status, Watch
from zoo import ALL, RADII, ZOO, Recipe, Training, recipes_for, said
from zoo.asserts import assert_same_direction
from zoo.optimizers import NOT_SCALED

PAIRS = [
    pytest.param(case, recipe, id=f"{case}-{recipe}")
    for case in ZOO.values()
    for recipe in ALL.values()
    if not recipe.cannot_train(case)
    and recipe.cls.__name__ not in NOT_SCALED
    and (case.name in {"mlp", "sparse-table"} or recipe.name in {"SGD-momentum", "AdamW"})
]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
WARM_UP = 2


@lru_cache(maxsize=8)
def plain_start_and_proposal(case, recipe, dtype):
    """Return the parameters before and after the step that follows the warm-up, without a guard."""
    training = Training(case, recipe, dtype=dtype).steps(WARM_UP)
    start = training.parameters()
    training.step()
    return start, training.parameters()


@lru_cache(maxsize=8)
def watched_ratio(case, recipe, dtype):
    """Return the exact r of that step."""
    with said(case.untaped):
        training = Training(case, recipe, dtype=dtype)
        guard = training.attach(policy=Watch(), method="exact")
        training.steps(WARM_UP + 1)
    return guard.last.ratio


@RADII
@DTYPES
@pytest.mark.parametrize(("case", "recipe"), PAIRS)
def test_a_capped_step_is_a_multiple_of_the_proposal(case, recipe, dtype, method):
    """Warm up inside, so that momentum and moments are those of the plain training, then cap one step to a seventh."""
    start, proposed = plain_start_and_proposal(case, recipe, dtype)
    target = watched_ratio(case, recipe, dtype) / 7
    with said(case.untaped if method != "tiered" else ""):
        training = Training(case, recipe, dtype=dtype)
        policy = Cap(lambda step: math.inf if step < WARM_UP else target)
        guard = training.attach(policy=policy, method=method)
        training.steps(WARM_UP + 1)
    # momentum may point uphill: held, and s is 0
    assert guard.last.status is Status.CAPPED or (method == "curvature" and guard.last.status is Status.HELD)
    if method == "exact":
        assert guard.last.scale == pytest.approx(1 / 7)
    assert_same_direction(start, proposed, training.parameters(), guard.last.scale)


@DTYPES
@pytest.mark.parametrize("target", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("recipe", recipes_for(ZOO["mlp"]), ids=str)
def test_a_pinned_step_is_a_multiple_of_the_proposal(recipe, target, dtype):
    plain = Training(ZOO["mlp"], recipe, dtype=dtype)
    start = plain.parameters()
    plain.step()
    training = Training(ZOO["mlp"], recipe, dtype=dtype)
    guard = training.attach(policy=Pin(target))
    training.step()
    if recipe.cls.__name__ in NOT_SCALED:
        assert (guard.last.scale, guard.last.status) == (1.0, Status.WATCHED)
    else:
        assert guard.last.status is Status.PINNED
    assert_same_direction(start, plain.parameters(), training.parameters(), guard.last.scale)


def three_optimizers(training):
    """Exchange the training's optimizers for three of different kinds and rates."""
    first, last = training.model[0], training.model[-1]
    training.optimizers = [
        SGD([first.weight], lr=30.0, momentum=0.9),
        Adam([first.bias, last.bias], lr=3.0),
        RMSprop([last.weight], lr=1.0),
    ]
    return training


def test_all_optimizers_of_a_step_share_one_scale():
    plain = three_optimizers(Training(ZOO["mlp"], ALL["SGD"]))
    start = plain.parameters()
    plain.step()
    training = three_optimizers(Training(ZOO["mlp"], ALL["SGD"]))
    guard = training.attach(policy=Cap(1.0))
    training.step()
    assert len(guard.history) == 1
    assert guard.last.status is Status.CAPPED
    assert len(guard.last.lrs) == 3
    assert_same_direction(start, plain.parameters(), training.parameters(), guard.last.scale)


def test_all_groups_of_an_optimizer_share_one_scale():
    def groups(training):
        training.optimizers = [SGD([{"params": [p], "lr": 10.0**i} for i, p in enumerate(training.model.parameters())])]
        return training

    plain = groups(Training(ZOO["mlp"], ALL["SGD"]))
    start = plain.parameters()
    plain.step()
    training = groups(Training(ZOO["mlp"], ALL["SGD"]))
    guard = training.attach(policy=Cap(0.3))
    training.step()
    assert guard.last.lrs == (1.0, 10.0, 100.0, 1000.0)
    assert guard.last.effective_lrs == tuple(guard.last.scale * lr for lr in guard.last.lrs)
    assert_same_direction(start, plain.parameters(), training.parameters(), guard.last.scale)


def test_a_parameter_outside_the_model_is_scaled_with_the_step():
    """It is the optimizer's step that is scaled, all of it; r cannot see such a parameter, and attach says so."""
    extra = torch.nn.Parameter(torch.ones(2))
    training = Training(ZOO["mlp"], Recipe("big", SGD, 100.0, 100.0))
    training.optimizers[0].add_param_group({"params": [extra]})
    with said("not the model's"):
        guard = training.attach(method="tiered")
    training.backward()
    extra.grad = torch.full((2,), 0.5)
    training.optimizers[0].step()
    assert guard.last.status is Status.CAPPED
    torch.testing.assert_close(extra.detach(), torch.full((2,), 1 - guard.last.scale * 100.0 * 0.5))
