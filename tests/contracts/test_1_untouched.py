"""Contract 1: a guard whose scale is 1 leaves training bit for bit what it is without a guard."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from safestep import Cap, Status, Watch
from zoo import ALL, METHODS, RADII, RECIPES, ZOO, Training, crossed, generators, recipes_for, said, set_generators
from zoo.asserts import assert_same_reports, assert_untouched
from zoo.optimizers import CANNOT_BE_BUILT, TAKES_SPARSE_GRADIENTS, exported
from zoo.training import gradients_stay

LEAVES_ALONE = {
    "watch": Watch(),
    "watch-cap": Watch(Cap(1e-6)),
    "cap-inf": Cap(math.inf),
    "cap-large": Cap(1e6),
    "cap-schedule": Cap(lambda step: 1e6 + step),
}
STEPS = 3
PAIRS = [
    pytest.param(case, recipe, id=f"{case}-{recipe}")
    for case, recipe in crossed(
        ZOO.values(),
        ALL.values(),
        always=lambda case, recipe: case.name == "mlp" or case.sparse or recipe.name == "SGD",
    )
    if not recipe.cannot_train(case)
    and (recipe.name in RECIPES or case.name == "mlp")  # the variants differ in the optimizer alone
]
METHODS_OF_PAIRS = [
    pytest.param(*pair.values, method, id=f"{pair.id}-{method}")
    for pair in PAIRS
    for method in ("tiered", "exact", "curvature")
    if method == "tiered" or pair.values[0].name == "mlp" or pair.values[1].name == "SGD"
]
SOME = [ALL["SGD-momentum"], ALL["AdamW"]]


def trained(case, recipe, policy=None, *, method="tiered", dtype=torch.float32, **hooks):
    """Return what training leaves after every step, with a guard if there is a policy, and its reports."""
    training = Training(case, recipe, dtype=dtype)
    guard = training.attach(policy=policy, method=method) if policy else None
    after = []
    with said(case.untaped if guard and method != "tiered" else ""):
        for _ in range(STEPS):
            training.step(**hooks)
            after.append(training.everything())
    return after, list(guard.history) if guard else []


@lru_cache(maxsize=8)
def unguarded(case, recipe, dtype=torch.float32):
    """Return what training without a guard leaves after every step."""
    return trained(case, recipe, dtype=dtype)[0]


def moved(case, recipe, after):
    """Return how many steps moved a parameter."""
    before = [Training(case, recipe).parameters(), *(one["parameters"] for one in after)]
    return sum(any((a[k] != b[k]).any() for k in a) for a, b in pairwise(before))


def test_every_exported_optimizer_is_in_the_table():
    assert exported() == {recipe.cls.__name__ for recipe in RECIPES.values()} | set(CANNOT_BE_BUILT)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=str)
def test_what_cannot_be_trained_cannot(recipe):
    """The table of refusals is torch's, not ours: every refused pair raises without any guard."""
    for case in (ZOO["mlp"], ZOO["sparse-table"]):
        training = Training(case, recipe)
        if recipe.cannot_train(case) and training.optimizers[0].__class__ is recipe.cls:
            with pytest.raises((RuntimeError, ValueError)):
                training.step()
    assert set(ALL) >= TAKES_SPARSE_GRADIENTS


@pytest.mark.parametrize(("case", "recipe", "method"), METHODS_OF_PAIRS)
def test_watched_training_is_bit_identical(case, recipe, method):
    plain = unguarded(case, recipe)
    guarded, reports = trained(case, recipe, Watch(), method=method)
    for mine, theirs in zip(guarded, plain, strict=True):
        assert_untouched(mine, theirs)
    assert len(reports) == moved(case, recipe, plain)  # a line search may end where it began: not a step
    assert all(math.isfinite(report.ratio) or method == "curvature" for report in reports)  # inf: uphill
    assert all(report.status is Status.WATCHED for report in reports)


@RADII
@pytest.mark.parametrize("policy", LEAVES_ALONE.values(), ids=LEAVES_ALONE.keys())
@pytest.mark.parametrize("recipe", recipes_for(ZOO["mlp"]), ids=str)
def test_training_inside_is_bit_identical_for_every_optimizer(recipe, policy, method):
    if method == "curvature" and policy.target_at(0) == 1e6:
        policy = Cap(math.inf)  # a step uphill is beyond any other target
    plain = unguarded(ZOO["mlp"], recipe)
    guarded, reports = trained(ZOO["mlp"], recipe, policy, method=method)
    for mine, theirs in zip(guarded, plain, strict=True):
        assert_untouched(mine, theirs)
    assert [report.scale for report in reports] == [1.0] * STEPS


@RADII
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("recipe", SOME, ids=str)
@pytest.mark.parametrize("case", [c for c in ZOO.values() if not c.sparse], ids=str)
def test_training_inside_is_bit_identical_for_every_model(case, recipe, dtype, method):
    plain = unguarded(case, recipe, dtype)
    policy = Cap(math.inf if method == "curvature" else 1e6)  # a step uphill is beyond any other target
    guarded, reports = trained(case, recipe, policy, dtype=dtype, method=method)
    for mine, theirs in zip(guarded, plain, strict=True):
        assert_untouched(mine, theirs)
    assert all(report.status is Status.INSIDE for report in reports)


@pytest.mark.parametrize("case", ZOO.values(), ids=str)
def test_a_target_just_above_r_leaves_training_alone_and_one_just_below_does_not(case):
    recipe = ALL["SGD"]
    plain = unguarded(case, recipe)
    ratios = [report.ratio for report in trained(case, recipe, Watch(), method="exact")[1]]
    guarded, reports = trained(case, recipe, Cap(lambda step: ratios[step] * (1 + 1e-9)), method="exact")
    for mine, theirs in zip(guarded, plain, strict=True):
        assert_untouched(mine, theirs)
    assert all(report.status is Status.INSIDE for report in reports)
    with said(case.untaped):
        below = Training(case, recipe)
        guard = below.attach(policy=Cap(ratios[0] * 0.9), method="exact")
        below.step()
    assert guard.last.status is Status.CAPPED
    assert any(
        (a != b).any() for a, b in zip(below.parameters().values(), plain[0]["parameters"].values(), strict=True)
    )


@RADII
@pytest.mark.parametrize("case", ZOO.values(), ids=str)
def test_gradients_are_the_same_tensors_after_the_step(case, method):
    training = Training(case, ALL["SGD"])
    training.attach(policy=Cap(0.01), method=method)
    with said(case.untaped if method != "tiered" else ""):
        training.backward()
        with gradients_stay(training.model):
            training.optimizers[0].step()


# -- forwards that do not count ---------------------------------------------------------------------------------------


def eval_forward(training):
    training.model.eval()
    forward(training)
    training.model.train()


def no_grad_forward(training):
    with torch.no_grad():
        forward(training)


def inference_forward(training):
    with torch.inference_mode():
        forward(training)


def eval_no_grad_forward(training):
    training.model.eval()
    no_grad_forward(training)
    training.model.train()


def discarded_forward(training):
    forward(training)


def forward(training):
    batch = training.case.batch(99, training.dtype)  # another batch than the one trained on
    training.model(*batch.args, **batch.kwargs)


EXTRA = [eval_forward, no_grad_forward, inference_forward, eval_no_grad_forward, discarded_forward]


@pytest.mark.parametrize("extra", EXTRA)
@pytest.mark.parametrize("case", ZOO.values(), ids=str)
def test_forwards_between_training_forward_and_step_change_nothing(case, extra):
    recipe = ALL["SGD"]
    plain, _ = trained(case, recipe, between=extra)
    guarded, _ = trained(case, recipe, Cap(1e6), between=extra)
    for mine, theirs in zip(guarded, plain, strict=True):
        assert_untouched(mine, theirs)


@RADII
@pytest.mark.parametrize("extra", EXTRA)
def test_forwards_that_do_not_count_do_not_enter_r(extra, method):
    def unnoticed(training):
        states = generators()
        extra(training)
        set_generators(states)

    case, recipe = ZOO["checkpoint"], ALL["SGD"]  # dropout, but no buffers: another forward moves nothing
    _, reports = trained(case, recipe, Watch(), method=method)
    _, others = trained(case, recipe, Watch(), method=method, between=unnoticed)
    assert_same_reports(others, reports)


@RADII
def test_a_probe_of_the_loss_whose_gradients_are_dropped_does_not_enter_r(method):
    case, recipe = ZOO["mlp"], ALL["SGD"]

    def probe_first(training):
        big = training.case.batch(99, training.dtype)
        F.cross_entropy(training.model(1e3 * big.args[0]), big.labels).backward()
        training.backward()  # zero_grad, then the real forward

    _, reports = trained(case, recipe, Watch(), method=method)
    _, others = trained(case, recipe, Watch(), method=method, between=probe_first)
    assert_same_reports(others, reports)


class Shifted(torch.nn.Module):
    """All logits shifted by one parameter: it moves by its decay alone, and no logit against another."""

    def __init__(self):
        super().__init__()
        self.body, self.by = ZOO["mlp"].build().requires_grad_(False), torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.body(x) + self.by


@METHODS
def test_an_unbounded_step_is_left_alone_too(method):
    """Zero spread gives scale 1: bit-identical; to a probe it is zero up to the rounding of the logits."""
    case = ZOO["mlp"].__class__("shifted", Shifted, ZOO["mlp"].batch)
    training, plain = (Training(case, ALL["AdamW"]) for _ in range(2))
    guard = training.attach(method=method)
    training.step()
    plain.step()
    assert guard.last.status is (Status.UNBOUNDED if method == "exact" else Status.INSIDE) or guard.last.ratio == 0.0
    assert guard.last.ratio < 1e-6
    assert guard.last.step_length > 0.0
    assert_untouched(training.everything(), plain.everything())
