"""suggest_lr: at the rate that it says, the next step has r = target; and where there is no such rate it says so."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import safestep
from safestep import AttachError, MeasurementError, SoftmaxRadius, Watch, suggest_lr
from zoo import ALL, RECIPES, ZOO, Training, poison, said

CLOSE = 1e-4
NO_CLOSURE = [recipe for recipe in ALL.values() if not recipe.closure]
OUT_OF_REACH = {("ASGD", 1.0), ("ASGD", 0.03), ("Rprop", 1.0), ("Rprop", 0.03), ("Adafactor", 1.0)}
"""What docs/optimizers.md says of them: the first two keep step sizes of their own once they have stepped, and a rate
above 1/sqrt(t) is none to Adafactor."""


def trained(recipe, case=None, steps=3, **options):
    name = case or ("sparse-table" if recipe.name == "SparseAdam" else "mlp")
    return Training(ZOO[name], recipe, **options).steps(steps)


def suggested(training, **options):
    return suggest_lr(training.model, training.optimizers, training.backward, **options)


def set_rates(training, rates):
    groups = [group for optimizer in training.optimizers for group in optimizer.param_groups]
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = torch.full_like(group["lr"], rate) if isinstance(group["lr"], torch.Tensor) else rate


def ratio_of_the_next_step(training, **options):
    with training.attach(policy=Watch(), radius=SoftmaxRadius(method="exact"), **options) as guard:
        training.step()
    return guard.last.ratio


def classifier(lr=0.1, **options):
    """A linear softmax classifier in float64 without a bias, and its batch."""
    model = nn.Linear(4, 3, bias=False).double()
    x, y = torch.randn(8, 4).double(), torch.randint(0, 3, (8,))
    return model, torch.optim.SGD(model.parameters(), lr=lr, **options), x, y


def backward_of(model, x, y):
    return lambda: F.cross_entropy(model(x), y).backward()


# -- the promise ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [1.0, 0.03])
@pytest.mark.parametrize("recipe", NO_CLOSURE, ids=str)
def test_a_real_guard_measures_the_target_at_the_suggested_rate(recipe, target):
    training = trained(recipe)
    found = suggested(training, target=target)
    if (recipe.name, target) in OUT_OF_REACH:
        assert found.status == "unreached"
        assert math.isnan(found.lr)
        assert not found.exact
        assert "does not follow" in str(found)
        return
    assert found.status == "found"
    assert found.exact
    set_rates(training, found.lrs)
    assert ratio_of_the_next_step(training) == pytest.approx(target, rel=CLOSE)


@pytest.mark.parametrize("recipe", NO_CLOSURE, ids=str)
def test_the_first_step_of_all_reaches_the_target_too(recipe):
    training = trained(recipe, steps=0)
    found = suggested(training, target=0.02)
    assert found.status == "found"
    set_rates(training, found.lrs)
    assert ratio_of_the_next_step(training) == pytest.approx(0.02, rel=CLOSE)


@pytest.mark.parametrize("case", ZOO.values(), ids=str)
def test_every_model_of_the_zoo_reaches_the_target(case):
    training = trained(ALL["SGD-momentum" if case.sparse else "AdamW"], case.name, steps=0)
    with said(case.warns or case.untaped):  # of the suggestion, or of the guard that confirms it
        found = suggested(training)
        set_rates(training, found.lrs)
        assert ratio_of_the_next_step(training) == pytest.approx(1.0, rel=CLOSE)
    assert found.status == "found"
    assert found.exact == (not case.warns)


def test_r_at_the_present_rate_is_what_a_guard_measures():
    training = trained(ALL["AdamW"])
    found = suggested(training)
    assert found.present_lrs == (0.01,)
    assert ratio_of_the_next_step(training) == found.ratio


@pytest.mark.parametrize("target", [1.0, 0.25])
def test_sgd_on_a_linear_classifier_meets_the_closed_form(target):
    model, optimizer, x, y = classifier()
    found = suggest_lr(model, optimizer, backward_of(model, x, y), target=target)
    gradient = (torch.softmax(x @ model.weight.T, -1) - F.one_hot(y, 3)).T @ x / len(x)
    moves = x @ gradient.T  # of the logits, per unit of learning rate
    assert found.lr == pytest.approx(target * math.pi / (moves.amax(-1) - moves.amin(-1)).max().item(), rel=1e-12)


@pytest.mark.parametrize("lr", [1e-30, 1e-9, 1e-6, 0.01, 1.0, 1e4, 1e36])
@pytest.mark.parametrize("name", ["SGD-momentum", "AdamW", "RMSprop"])
def test_the_suggestion_does_not_depend_on_the_present_rate(name, lr):
    training = trained(ALL[name])
    wanted = suggested(training)
    set_rates(training, [lr])
    found = suggested(training)
    assert found.present_lr == lr
    assert found.status == "found"
    assert found.lr == pytest.approx(wanted.lr, rel=2 * CLOSE)


@pytest.mark.parametrize("lr", [0.0, 1e-30, 1e-3, 1e8])
@pytest.mark.parametrize("size", [1e-12, 1e-6, 1.0, 1e6, 1e36])
def test_gradients_of_any_size_have_their_rate(size, lr):
    """A step that rounding swallows whole, and one that overflows, tell nothing: another rate does."""
    model = nn.Linear(4, 3, bias=False)
    x, y = torch.randn(8, 4), torch.randint(0, 3, (8,))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)

    def closure():
        (F.cross_entropy(model(x), y) * size).backward()

    found = suggest_lr(model, optimizer, closure)
    assert found.status == "found"
    exact = suggest_lr(model.double(), optimizer, backward_of(model, x.double(), y))
    assert found.lr * size == pytest.approx(exact.lr, rel=2 * CLOSE)


def test_the_target_is_proportional_to_the_rate():
    training = trained(ALL["AdamW"])
    assert suggested(training, target=2.0).lr == pytest.approx(4 * suggested(training, target=0.5).lr, rel=2 * CLOSE)


def test_one_trial_step_is_enough_where_r_is_proportional():
    assert len(suggested(trained(ALL["SGD"])).trials) == 2  # at the present rate, and the suggested one to be sure


# -- rates and groups -------------------------------------------------------------------------------------------------


def groups_of(model, *rates):
    return torch.optim.SGD([{"params": [p], "lr": lr} for p, lr in zip(model.parameters(), rates, strict=True)])


@pytest.mark.parametrize("rates", [(0.1, 0.3, 0.2, 0.7), (0.0, 0.3, 0.0, 0.7), (0.1, 0.0, 0.0, 0.0)])
def test_groups_keep_their_proportions_and_a_rate_of_zero(rates):
    training = Training(ZOO["mlp"], ALL["SGD"])
    training.optimizers = [groups_of(training.model, *rates)]
    found = suggested(training)
    factor = found.lr / next(rate for rate in rates if rate)
    assert found.lrs == pytest.approx(tuple(rate * factor for rate in rates))
    set_rates(training, found.lrs)
    assert ratio_of_the_next_step(training) == pytest.approx(1.0, rel=CLOSE)


def test_several_optimizers_are_scaled_together():
    training = trained(RECIPES["Muon"])
    training.optimizers[1].param_groups[0]["lr"] = 0.05
    found = suggested(training)
    assert found.lrs[1] == pytest.approx(5 * found.lrs[0])
    set_rates(training, found.lrs)
    assert ratio_of_the_next_step(training) == pytest.approx(1.0, rel=CLOSE)


def test_a_warm_up_from_zero_takes_the_proportions_that_it_began_with():
    training = Training(ZOO["mlp"], ALL["SGD"])
    training.optimizers = [groups_of(training.model, 0.1, 0.2, 0.3, 0.4)]
    torch.optim.lr_scheduler.LambdaLR(training.optimizers[0], lambda step: step / 10)
    found = suggested(training)
    assert found.present_lrs == (0.0,) * 4
    assert (found.present_lr, found.ratio) == (0.0, 0.0)
    assert found.lrs == pytest.approx(tuple(found.lr * share for share in (1, 2, 3, 4)))
    set_rates(training, found.lrs)
    assert ratio_of_the_next_step(training) == pytest.approx(1.0, rel=CLOSE)


def test_zero_rates_without_a_schedule_are_taken_as_equal():
    training = Training(ZOO["mlp"], ALL["SGD"])
    wanted = suggested(training).lr
    training.optimizers = [groups_of(training.model, 0.0, 0.0, 0.0, 0.0)]
    assert suggested(training).lrs == pytest.approx((wanted,) * 4, rel=2 * CLOSE)


def test_a_rate_in_a_tensor_stays_that_tensor():
    training = Training(ZOO["mlp"], ALL["Adam"])
    rate = torch.tensor(0.01)
    training.optimizers = [torch.optim.Adam(training.model.parameters(), lr=rate, foreach=False)]
    found = suggested(training)
    assert training.optimizers[0].param_groups[0]["lr"] is rate
    assert rate == torch.tensor(0.01)
    set_rates(training, found.lrs)
    assert ratio_of_the_next_step(training) == pytest.approx(1.0, rel=CLOSE)


# -- what the closure may hold ----------------------------------------------------------------------------------------


def test_stale_gradients_do_not_count_with_or_without_zero_grad():
    model, optimizer, x, y = classifier()
    wanted = suggest_lr(model, optimizer, backward_of(model, x, y)).lr
    F.cross_entropy(model(100 * x), y).backward()

    def as_torch_does():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    assert suggest_lr(model, optimizer, backward_of(model, x, y)).lr == wanted
    assert suggest_lr(model, optimizer, as_torch_does).lr == wanted


def test_clipping_in_the_closure_is_part_of_the_step():
    model, optimizer, x, y = classifier()

    def clipped():
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)

    plain = suggest_lr(model, optimizer, backward_of(model, x, y))
    norm = nn.utils.get_total_norm(torch.autograd.grad(F.cross_entropy(model(x), y), model.parameters()))
    assert suggest_lr(model, optimizer, clipped).lr == pytest.approx(plain.lr * norm.item() / 1e-3, rel=1e-4)


def test_a_step_hook_of_the_user_is_part_of_the_step():
    model, optimizer, x, y = classifier()
    wanted = suggest_lr(model, optimizer, backward_of(model, x, y)).lr

    def halve(optimizer, args, kwargs):
        model.weight.grad.mul_(0.5)

    optimizer.register_step_pre_hook(halve)
    assert suggest_lr(model, optimizer, backward_of(model, x, y)).lr == pytest.approx(2 * wanted)


def test_every_micro_batch_counts():
    model, optimizer, x, y = classifier()

    def accumulate():
        for part in (slice(0, 4), slice(4, 8)):
            (F.cross_entropy(model(x[part]), y[part]) / 2).backward()

    assert suggest_lr(model, optimizer, accumulate).lr == pytest.approx(
        suggest_lr(model, optimizer, backward_of(model, x, y)).lr
    )


def test_it_may_be_called_without_gradients_enabled():
    model, optimizer, x, y = classifier()
    with torch.no_grad():
        assert suggest_lr(model, optimizer, backward_of(model, x, y)).status == "found"


def test_logits_and_radius_are_the_guards_options():
    model, optimizer, x, _ = classifier()
    targets = torch.rand(8, 3).double()

    def closure():
        F.binary_cross_entropy_with_logits(model(x), targets).backward()

    sigmoid = suggest_lr(model, optimizer, closure, radius=SoftmaxRadius(method="exact", head="sigmoid"))
    optimizer.param_groups[0]["lr"] = sigmoid.lr
    radius = SoftmaxRadius(method="exact", head="sigmoid")
    with safestep.attach(model, optimizer, policy=Watch(), radius=radius) as guard:
        closure()
        optimizer.step()
    assert guard.last.ratio == pytest.approx(1.0, rel=CLOSE)


def test_under_autocast_the_answer_is_not_called_exact():
    model = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(8, 4), torch.randint(0, 3, (8,))

    def closure():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(x), y)
        loss.backward()

    found = suggest_lr(model, optimizer, closure)
    assert found.status in {"found", "near"}
    assert not found.exact


# -- where there is no such rate --------------------------------------------------------------------------------------


def test_a_step_that_moves_no_logit_is_unbounded():
    """The cross-entropy of even labels at logits of zero pulls at no bias, and a penalty shifts them all alike."""
    model = nn.Linear(4, 4)
    nn.init.zeros_(model.weight).requires_grad_(False)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD([model.bias], lr=0.1)
    x, y = torch.randn(8, 4), torch.arange(8) % 4

    def closure():
        (F.cross_entropy(model(x), y) + model.bias.sum()).backward()

    found = suggest_lr(model, optimizer, closure, radius=SoftmaxRadius(method="exact"))
    assert (found.status, found.lr, found.ratio) == ("unbounded", math.inf, 0.0)
    assert "moves no logit" in str(found)


def test_gradients_of_zero_are_unbounded():
    model, optimizer, x, y = classifier()
    found = suggest_lr(model, optimizer, backward_of(lambda x: 0.0 * model(x), x, y))
    assert (found.status, found.lrs) == ("unbounded", (math.inf,))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_has_no_rate(bad):
    training = trained(ALL["AdamW"])

    def closure():
        training.backward()
        poison(training, bad)

    found = suggest_lr(training.model, training.optimizers, closure)
    assert found.status == "nonfinite"
    assert math.isnan(found.lr)
    assert all(torch.isfinite(p).all() for p in training.model.parameters())
    assert suggested(training).status == "found"  # and the optimizer's moments are not poisoned


def test_coarse_parameters_are_answered_by_what_was_measured():
    """In bfloat16 r climbs in stairs: the answer is r there, whatever its name.

    The guard reads its tangents off the training pass, the suggestion runs another: each rounds a few times to 2^-8.
    """
    training = Training(ZOO["mlp"], ALL["SGD"], dtype=torch.bfloat16)
    with said("bfloat16"):
        found = suggested(training)
    assert not found.exact
    if found.status in {"found", "near"}:
        set_rates(training, found.lrs)
        with said("bfloat16"):
            assert ratio_of_the_next_step(training) == pytest.approx(found.reached, rel=2**-6)
    else:
        assert math.isnan(found.lr)


# -- what is refused --------------------------------------------------------------------------------------------------


def test_lbfgs_is_refused():
    model, _, x, y = classifier()
    with pytest.raises(MeasurementError, match="LBFGS searches its own step"):
        suggest_lr(model, torch.optim.LBFGS(model.parameters()), backward_of(model, x, y))


def test_an_optimizer_without_a_rate_is_refused():
    model, optimizer, x, y = classifier()
    optimizer.param_groups[0]["lr"] = None
    with pytest.raises(MeasurementError, match="learning rate None: expected a number"):
        suggest_lr(model, optimizer, backward_of(model, x, y))


def test_a_part_that_cannot_be_copied_is_named():
    import threading

    model, optimizer, x, y = classifier()
    optimizer.lock = threading.Lock()
    with pytest.raises(MeasurementError, match=r"SGD\.lock, a lock, cannot be copied"):
        suggest_lr(model, optimizer, backward_of(model, x, y))


def test_a_loss_in_place_of_a_closure_is_refused():
    model, optimizer, x, y = classifier()
    with pytest.raises(TypeError, match="expected a function without arguments"):
        suggest_lr(model, optimizer, F.cross_entropy(model(x), y))


def test_a_closure_without_backward_is_refused():
    model, optimizer, x, y = classifier()
    with pytest.raises(MeasurementError, match="left no gradient"):
        suggest_lr(model, optimizer, lambda: F.cross_entropy(model(x), y))


def test_a_closure_past_the_model_is_refused():
    model, optimizer, x, y = classifier()
    with pytest.raises(MeasurementError, match="no forward to measure"):
        suggest_lr(model, optimizer, lambda: F.cross_entropy(x @ model.weight.T, y).backward())


@pytest.mark.parametrize("target", [0.0, -1.0, math.inf, math.nan, "1"])
def test_a_target_that_is_not_a_positive_number_is_refused(target):
    model, optimizer, x, y = classifier()
    with pytest.raises(ValueError, match="expected a positive number"):
        suggest_lr(model, optimizer, backward_of(model, x, y), target=target)


def test_another_models_optimizer_is_refused():
    model, _, x, y = classifier()
    _, other, _, _ = classifier()
    with pytest.raises(AttachError, match="attach the model that this optimizer trains"):
        suggest_lr(model, other, backward_of(model, x, y))


# -- the line ---------------------------------------------------------------------------------------------------------


def test_the_answer_is_one_readable_line():
    model, optimizer, x, y = classifier()
    found = suggest_lr(model, optimizer, backward_of(model, x, y))
    assert str(found) == (
        f"suggested lr {found.lr:.4g} (r 1, target 1), present lr 0.1 (r {found.ratio:.4g}): found  "
        "[forward-mode/train]"
    )


def test_by_the_curvature_it_suggests_the_limit_of_stability():
    """Along an eigenvector of a quadratic r = eta lambda / 2: 1 at 2 / lambda, an exact line search at target 1/2."""
    model = torch.nn.Linear(1, 1, bias=False).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.full((1, 1), 2.0, dtype=torch.float64)  # lambda = 4

    def closure():
        ((model(x) - 1.0).square().sum() / 2).backward()

    radius = safestep.CurvatureRadius("half_mse")
    assert safestep.suggest_lr(model, optimizer, closure, radius=radius).lr == pytest.approx(0.5, rel=1e-3)
    half = safestep.suggest_lr(model, optimizer, closure, radius=radius, target=0.5)
    assert half.lr == pytest.approx(0.25, rel=1e-3)
