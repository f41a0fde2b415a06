"""Contract 2: after a capped step the true r of what was applied, by the slow twin, is at most the target."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from safestep import Cap, Pin, SoftmaxRadius, Status, Throttle, Watch
from zoo import ALL, ZOO, Batch, Case, Recipe, Scene, Training, crossed, said, twin_curvature, twin_ratio
from zoo.asserts import assert_inside
from zoo.optimizers import NOT_SCALED

SCALED = [recipe for recipe in ALL.values() if recipe.cls.__name__ not in NOT_SCALED]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
PRECISION = {torch.float32: 1e-5, torch.float64: 1e-10}
"""How far the guard's r may lie from the twin's, relative, where it was differentiated."""
DIFFERENCE_PRECISION = 1e-8
"""The same in float64 where a difference did: rounding 2e-16 of logits up to 100, over a change of 1e-5."""
STEPS = 3


def steps_with_twin(training, count=STEPS, **options):
    """Yield the scene and the applied displacement of each step."""
    for _ in range(count):
        scene, start = Scene.of(training), training.parameters()
        training.step()
        yield scene, {name: p.double() - start[name].double() for name, p in training.parameters().items()}


def assert_kept_inside(training, policy, **radius):
    """Train with big steps; return how many were scaled."""
    guard, scaled = training.attach(policy=policy, radius=SoftmaxRadius(method="exact", **radius)), 0
    with said(training.case.untaped):
        for scene, applied in steps_with_twin(training):
            assert_inside(twin_ratio(training, scene, applied, **radius), guard.last, policy.target)
            scaled += guard.last.scale != 1.0
    assert len(guard.history) == STEPS
    return scaled


def test_the_twin_on_a_linear_model():
    """J p of a linear layer is known: x dW^T + db."""
    torch.manual_seed(0)
    case = Case("linear", lambda: nn.Linear(4, 3), ZOO["mlp"].batch)
    training = Training(case, ALL["SGD"])
    scene = Scene.of(training)
    p = {"weight": torch.randn(3, 4), "bias": torch.randn(3)}
    tangent = scene.batch.args[0].double() @ p["weight"].double().T + p["bias"].double()
    known = (tangent.amax(1) - tangent.amin(1)).max().item() / math.pi
    assert twin_ratio(training, scene, p) == pytest.approx(known, rel=1e-14)


@DTYPES
@pytest.mark.parametrize("policy", [Cap(1.0), Cap(0.05), Pin(0.5)], ids=str)
@pytest.mark.parametrize("recipe", [r for r in SCALED if not r.cannot_train(ZOO["mlp"])], ids=str)
def test_every_optimizer_is_kept_inside(recipe, policy, dtype):
    training = Training(ZOO["mlp"], recipe, dtype=dtype, big=True)
    assert assert_kept_inside(training, policy) > 0


@DTYPES
@pytest.mark.parametrize("recipe", [ALL["SparseAdam"], ALL["SGD"], ALL["Adagrad"]], ids=str)
def test_sparse_gradients_are_kept_inside(recipe, dtype):
    assert assert_kept_inside(Training(ZOO["sparse-table"], recipe, dtype=dtype, big=True), Cap(1.0)) > 0


@DTYPES
@pytest.mark.parametrize("recipe", [ALL["SGD-momentum"], ALL["AdamW"]], ids=str)
@pytest.mark.parametrize(("case", "seed"), crossed([c for c in ZOO.values() if not c.sparse], [0, 1, 2]), ids=str)
def test_every_model_is_kept_inside(case, recipe, seed, dtype):
    training = Training(case, recipe, dtype=dtype, seed=seed, big=True)
    assert assert_kept_inside(training, Cap(1.0)) == STEPS


@pytest.mark.parametrize("policy", [Cap(1.0), Pin(0.5)], ids=str)
@pytest.mark.parametrize("method", ["tiered", "probe"])
@pytest.mark.parametrize("case", [c for c in ZOO.values() if not c.sparse], ids=str)
def test_estimated_ratios_keep_every_model_near_the_target(case, method, policy):
    """Proposals up to a thousand times too long: an estimate is not promised, but none may be far off."""
    training = Training(case, ALL["AdamW"], big=True)
    guard = training.attach(policy=policy, method=method)
    for scene, applied in steps_with_twin(training):
        assert twin_ratio(training, scene, applied) <= 1.2 * policy.target
        assert guard.last.scale < 1.0
        assert not guard.last.exact


@pytest.mark.parametrize("case", [c for c in ZOO.values() if not c.sparse], ids=str)
def test_every_model_is_pinned_at_the_target(case):
    assert assert_kept_inside(Training(case, ALL["SGD"]), Pin(1.0)) == STEPS


@DTYPES
@pytest.mark.parametrize("case", ZOO.values(), ids=str)
def test_the_measured_ratio_is_the_twins(case, dtype):
    """Watched: the applied displacement is the proposal itself."""
    training = Training(case, ALL["SGD"], dtype=dtype)
    guard = training.attach(policy=Watch(), method="exact")
    precision = max(PRECISION[dtype], DIFFERENCE_PRECISION if case.difference else 0.0)
    with said(case.untaped):
        for scene, p in steps_with_twin(training):
            assert guard.last.ratio == pytest.approx(twin_ratio(training, scene, p), rel=precision)
            assert guard.last.radius * guard.last.ratio == pytest.approx(guard.last.step_length, rel=1e-12)
            assert guard.last.exact is not case.difference


@DTYPES
@pytest.mark.parametrize("case", [ZOO["cnn"], ZOO["checkpoint"], ZOO["dot-product"]], ids=str)
def test_eval_mode_measures_the_model_as_it_is_evaluated(case, dtype):
    """Buffers are those after the training forward, dropout is off."""
    training = Training(case, ALL["SGD"], dtype=dtype)
    guard = training.attach(policy=Watch(), radius=SoftmaxRadius(method="exact", mode="eval"))
    for _ in range(STEPS):
        start, batch = training.parameters(), case.batch(training.index, dtype)
        training.step()
        scene = Scene.of(training)
        scene = Scene({**scene.state, **start}, scene.chance, batch)
        p = {name: q.double() - start[name].double() for name, q in training.parameters().items()}
        assert guard.last.ratio == pytest.approx(twin_ratio(training, scene, p, mode="eval"), rel=PRECISION[dtype])
        assert all(module.training for module in training.model.modules())


def multi_label(index, dtype):
    batch = ZOO["mlp"].batch(index, dtype)
    return Batch(batch.args, F.one_hot(batch.labels, 3).to(dtype))


@DTYPES
def test_independent_sigmoids(dtype):
    case = Case("sigmoids", ZOO["mlp"].build, multi_label, objective=F.binary_cross_entropy_with_logits)
    assert assert_kept_inside(Training(case, ALL["SGD"], dtype=dtype, big=True), Cap(1.0), head="sigmoid") == STEPS


def test_one_sigmoid():
    def batch(index, dtype):
        whole = ZOO["mlp"].batch(index, dtype)
        return Batch(whole.args, (whole.labels > 0).to(dtype)[:, None])

    case = Case("binary", lambda: nn.Linear(4, 1), batch, objective=F.binary_cross_entropy_with_logits)
    assert assert_kept_inside(Training(case, ALL["SGD"], big=True), Cap(1.0), head="sigmoid") == STEPS


@DTYPES
@pytest.mark.parametrize("lr", [1e4, 1e8, 1e15, 1e25])
def test_a_spike_of_any_height_is_capped(lr, dtype):
    spike = Recipe("spike", torch.optim.SGD, lr, lr)
    training = Training(ZOO["mlp"], spike, dtype=dtype)
    guard = training.attach(policy=Cap(1.0), method="exact")
    for scene, applied in steps_with_twin(training):
        assert_inside(twin_ratio(training, scene, applied), guard.last, 1.0)
        assert guard.last.status is Status.CAPPED
        assert guard.last.ratio > 1e2


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.8, 1.0])
def test_a_quantile_is_that_quantile_and_says_so(quantile):
    """Five samples: 0.2 is the smallest spread, 1.0 the largest, each found by measuring the samples one at a time."""
    training = Training(ZOO["mlp"], ALL["SGD"])
    guard = training.attach(policy=Watch(), radius=SoftmaxRadius(method="exact", over=quantile))
    ((scene, p),) = steps_with_twin(training, 1)
    (x,), labels = scene.batch.args, scene.batch.labels
    one_by_one = sorted(
        twin_ratio(training, Scene(scene.state, scene.chance, Batch((x[i : i + 1],), labels[i : i + 1])), p)
        for i in range(len(x))
    )
    assert guard.last.ratio == pytest.approx(one_by_one[math.ceil(quantile * len(x)) - 1], rel=1e-5)
    assert guard.last.exact is (quantile == 1.0)
    assert ("quantile" in guard.last.method) is (quantile < 1.0)


# -- curvature --------------------------------------------------------------------------------------------------------

SOFT = [case for case in ZOO.values() if case.objective is None]


@DTYPES
@pytest.mark.parametrize("case", SOFT, ids=str)
def test_every_model_is_throttled_to_its_aim(case, dtype):
    """The curvature of the proposal is the twin's, and of the applied step, s times it, at most chi / 2."""
    training, throttle = Training(case, ALL["SGD"], dtype=dtype, big=True), Throttle(chi=1.5)
    guard, precision = training.attach(policy=throttle), 10 * PRECISION[dtype]  # terms of g.p cancel
    with said(case.untaped):
        for scene, applied in steps_with_twin(training):
            r = twin_curvature(training, scene, applied)
            assert guard.last.status in {Status.THROTTLED, Status.INSIDE}  # plain SGD never goes uphill
            assert r <= 0.75 * (1 + 1e-3)
            precise = max(precision, DIFFERENCE_PRECISION if case.difference else 0.0)
            assert guard.last.applied_ratio == pytest.approx(r, rel=precise)


@pytest.mark.parametrize("recipe", [r for r in SCALED if not r.cannot_train(ZOO["mlp"])], ids=str)
def test_every_optimizer_is_throttled_or_held(recipe):
    training = Training(ZOO["mlp"], recipe, dtype=torch.float64, big=True)
    guard = training.attach(policy=Throttle(chi=1.5))
    for scene, applied in steps_with_twin(training):
        if guard.last.status is Status.HELD:
            assert all(not p.any() for p in applied.values())
        else:
            assert 0.0 <= twin_curvature(training, scene, applied) <= 0.75 * (1 + 1e-3)
