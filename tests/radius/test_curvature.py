"""The curvature radius against dense Jacobians and Hessians in float64, and the steps it holds."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from safestep import (
    Cap,
    CurvatureRadius,
    HessianRadius,
    MeasurementError,
    Pin,
    SafestepWarning,
    Status,
    Throttle,
    Watch,
    attach,
)
from safestep.errors import LossMismatchError
from safestep.recording.proposal import Proposal
from zoo import examples

IGNORED = torch.tensor([0, 1, -100, 2, 3, -100])


def half_mse(z, y):
    return (z - y).square().sum() / (2 * z.shape[:-1].numel())


def labels(kind):
    generator = torch.Generator().manual_seed(3)
    if kind == "ignored":
        return IGNORED
    if kind == "classes":
        return torch.randint(0, 4, (6,), generator=generator)
    if kind == "flags":
        return torch.randint(0, 2, (6, 4), generator=generator).double()
    return torch.randn(6, 4, dtype=torch.float64, generator=generator)


LOSSES = {
    "cross-entropy": (CurvatureRadius(), F.cross_entropy, "classes"),
    "cross-entropy-sum": (
        CurvatureRadius(reduction="sum"),
        lambda z, y: F.cross_entropy(z, y, reduction="sum"),
        "classes",
    ),
    "ignored-labels": (CurvatureRadius(), F.cross_entropy, "ignored"),
    "smoothed-labels": (CurvatureRadius(), lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1), "classes"),
    "soft-labels": (CurvatureRadius(), lambda z, y: F.cross_entropy(z, y.softmax(-1)), "reals"),
    "scaled": (CurvatureRadius(scale=3.0), lambda z, y: 3 * F.cross_entropy(z, y), "classes"),
    "bce": (CurvatureRadius("bce"), F.binary_cross_entropy_with_logits, "flags"),
    "half_mse": (CurvatureRadius("half_mse"), half_mse, "reals"),
    "mse": (CurvatureRadius("mse"), F.mse_loss, "reals"),
    "mse-sum": (CurvatureRadius("mse", reduction="sum"), lambda z, y: F.mse_loss(z, y, reduction="sum"), "reals"),
}
LOSS = pytest.mark.parametrize("name", LOSSES)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4)).double()


def inputs(seed=1):
    return torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dense_ratio(model, start, p, x, loss):
    """r by a dense Jacobian of the logits and a dense Hessian of the loss at them."""

    def logits(*values):
        return torch.func.functional_call(model, dict(zip(start, values, strict=True)), (x,))

    jacobians = torch.autograd.functional.jacobian(logits, tuple(start.values()))
    a = sum(j.flatten(2) @ p[name].flatten() for j, name in zip(jacobians, start, strict=True))
    z = logits(*start.values()).detach().requires_grad_()
    slope = (torch.autograd.grad(loss(z), z)[0] * a).sum()
    bend = a.flatten() @ torch.autograd.functional.hessian(loss, z.detach()).reshape(a.numel(), -1) @ a.flatten()
    return (bend / (-2 * slope)).item()


def parameters(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def stepped(model, radius, act, policy=None, lr=0.3, **options):
    """One SGD step under a guard; returns its report, theta_0 and what was applied, by name."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, **options)
    start = parameters(model)
    with attach(model, optimizer, radius=radius, policy=policy or Watch()) as guard:
        act(optimizer)
        optimizer.step()
    return guard.last, start, {name: p - start[name] for name, p in parameters(model).items()}


@pytest.mark.filterwarnings("ignore:whether the loss multiplies")  # soft labels do not tell
@LOSS
def test_r_is_the_quadratic_model_of_the_loss_along_the_step(name):
    radius, loss, kind = LOSSES[name]
    model, x, y = network(), inputs(), labels(kind)
    report, start, p = stepped(model, radius, lambda _: loss(model(x), y).backward())
    assert report.ratio == pytest.approx(dense_ratio(model, start, p, x, lambda z: loss(z, y)), rel=1e-10)
    assert report.exact is (name != "soft-labels")  # a factor that they may have had is not known


@pytest.mark.filterwarnings("ignore:whether the loss multiplies")  # soft labels do not tell
@LOSS
def test_for_a_linear_model_it_is_the_hessian(name):
    radius, loss, kind = LOSSES[name]
    x, y = inputs(), labels(kind)
    ratios = []
    for one in (radius, None):
        torch.manual_seed(0)
        model = nn.Linear(5, 4).double()
        one = one or HessianRadius(lambda: loss(model(x), y))  # noqa: B023, PLW2901
        ratios.append(stepped(model, one, lambda _: loss(model(x), y).backward())[0].ratio)  # noqa: B023
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-10)


@given(eigenvalue=st.floats(0.01, 1e3), margin=st.floats(0.01, 100))
@examples(30)
def test_plain_sgd_along_an_eigenvector_has_half_its_margin(eigenvalue, margin):
    """Contract 5: on a quadratic r = eta lambda / 2, 1 at eta lambda = 2."""
    model = nn.Linear(1, 1, bias=False).double()
    x = torch.full((1, 1), math.sqrt(eigenvalue), dtype=torch.float64)
    act = lambda _: half_mse(model(x), torch.ones(1, 1)).backward()  # noqa: E731
    report, *_ = stepped(model, CurvatureRadius("half_mse"), act, lr=margin / eigenvalue)
    # p is a difference of parameters, whose rounding is that of the larger of them
    assert report.ratio == pytest.approx(margin / 2, rel=1e-9)


def test_at_twice_the_inverse_curvature_r_is_one():
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    x = torch.full((1, 1), 2.0, dtype=torch.float64)
    act = lambda _: half_mse(model(x), torch.ones(1, 1)).backward()  # noqa: E731
    assert stepped(model, CurvatureRadius("half_mse"), act, lr=0.5)[0].ratio == 1.0


class Along(torch.optim.Optimizer):
    """Adds c times the negative gradient, for any c."""

    def __init__(self, parameters, c):
        super().__init__(parameters, {})
        self.c = c

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for q in group["params"]:
                q.add_(q.grad, alpha=-self.c)


@given(power=st.floats(-6, 6))
@examples(20)
def test_r_grows_with_the_length_of_the_step(power):
    """Contract 4: r(c p) = c r(p) for c > 0; in the other direction the step goes uphill."""
    ratios = []
    for c in (1.0, 10.0**power, -1.0):
        model, x, y = network(), inputs(), labels("classes")
        optimizer = Along(model.parameters(), c)
        guard = attach(model, optimizer, radius=CurvatureRadius(), policy=Watch())
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        ratios.append(guard.last.ratio)
    # a displacement is read off parameters of size 1 with 16 digits
    assert ratios[1] == pytest.approx(10.0**power * ratios[0], rel=1e-8)
    assert ratios[2] == math.inf


# -- the gradient at the logits ---------------------------------------------------------------------------------------


def test_micro_batches_are_one_batch():
    x, y = inputs(), labels("classes")
    whole, parts = network(), network()
    one, *_ = stepped(whole, CurvatureRadius(), lambda _: F.cross_entropy(whole(x), y).backward())

    def act(_):
        for rows in (slice(0, 3), slice(3, 6)):
            (F.cross_entropy(parts(x[rows]), y[rows]) / 2).backward()

    assert stepped(parts, CurvatureRadius(), act)[0].ratio == pytest.approx(one.ratio, rel=1e-12)


def test_micro_batches_of_different_sizes_are_weighed_the_safer_way():
    """A mean of their means weighs a sample of the smaller one more: over all samples r would be too small."""
    model, x, y = network(), inputs(), labels("reals")
    x[5] *= 20
    parts = slice(0, 5), slice(5, 6)
    loss = lambda z: sum(F.mse_loss(z[rows], y[rows]) for rows in parts) / 2  # noqa: E731

    def act(_):
        for rows in parts:
            (F.mse_loss(model(x[rows]), y[rows]) / 2).backward()

    report, start, p = stepped(model, CurvatureRadius("mse"), act)
    assert report.ratio >= dense_ratio(model, start, p, x, loss) * (1 - 1e-10)
    assert not report.exact


def added(model, x, y):
    def act(_):
        for rows in (slice(0, 3), slice(3, 6)):
            F.cross_entropy(model(x[rows]), y[rows]).backward()

    return act


def test_micro_batches_that_are_added_are_noticed():
    x, y = inputs(), labels("classes")
    with pytest.warns(SafestepWarning, match=r"2 times that of .* scale=2"):
        stepped(model := network(), CurvatureRadius(), added(model, x, y))
    model, doubled = network(), network()
    report, *_ = stepped(model, CurvatureRadius(scale=2.0), added(model, x, y))
    whole, *_ = stepped(doubled, CurvatureRadius(scale=2.0), lambda _: (2 * F.cross_entropy(doubled(x), y)).backward())
    assert report.ratio == pytest.approx(whole.ratio, rel=1e-12)


def test_a_forgotten_sum_is_noticed():
    model, x, y = network(), inputs(), labels("classes")
    with pytest.warns(SafestepWarning, match="6 times"):
        stepped(model, CurvatureRadius(), lambda _: F.cross_entropy(model(x), y, reduction="sum").backward())


def test_two_losses_of_one_forward_add_up():
    model, x, y = network(), inputs(), labels("classes")
    loss = lambda z: F.cross_entropy(z, y) / 3  # noqa: E731

    def act(_):
        z = model(x)
        loss(z).backward(retain_graph=True)
        (2 * loss(z)).backward()

    report, start, p = stepped(model, CurvatureRadius(), act)
    assert report.ratio == pytest.approx(dense_ratio(model, start, p, x, lambda z: 3 * loss(z)), rel=1e-10)


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_neither_a_gradient_scaler_nor_clipping_changes_what_the_loss_is(clip):
    """Clipping shortens p and leaves g at the logits; the scaler's factor is taken out again."""
    model, x, y = network(), inputs(), labels("classes")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    scaler, start = torch.amp.GradScaler("cpu", init_scale=2.0**12), parameters(model)
    guard = attach(model, optimizer, radius=CurvatureRadius(), policy=Watch())
    scaler.scale(F.cross_entropy(model(x), y)).backward()
    scaler.unscale_(optimizer)
    if clip:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    scaler.step(optimizer)
    scaler.update()
    p = {name: q - start[name] for name, q in parameters(model).items()}
    expected = dense_ratio(model, start, p, x, lambda z: F.cross_entropy(z, y))
    assert guard.last.ratio == pytest.approx(expected, rel=1e-9)


def attacked(model, optimizer, x, loss):
    for _ in range(3):
        given = x.clone().requires_grad_()
        torch.autograd.grad(loss(model(given)), given)
    loss(model(x)).backward()


def penalised(model, optimizer, x, loss):
    given = x.clone().requires_grad_()
    value = loss(model(given))
    slope = torch.autograd.grad(value, given, create_graph=True)[0]
    (value + 1e-15 * slope.square().sum()).backward()


def zeroed(model, optimizer, x, loss):
    (100 * loss(model(x))).backward()
    optimizer.zero_grad(set_to_none=False)
    loss(model(x)).backward()


def repeated(model, optimizer, x, loss):
    value = loss(model(x))
    value.backward(retain_graph=True)
    optimizer.zero_grad()
    value.backward()


@pytest.mark.parametrize("act", [attacked, penalised, zeroed, repeated])
def test_gradients_that_are_not_of_the_step_do_not_count(act):
    """Counted in, each of them would make g.p too large and so r too small."""
    model, x, y = network(), inputs(), labels("reals")
    loss = lambda z: F.mse_loss(z, y)  # noqa: E731
    report, start, p = stepped(model, CurvatureRadius("mse"), lambda optimizer: act(model, optimizer, x, loss))
    assert report.ratio == pytest.approx(dense_ratio(model, start, p, x, loss), rel=1e-9)


def test_gradients_that_the_caller_stores_himself_count():
    model, x, y = network(), inputs(), labels("reals")

    def act(_):
        gradients = torch.autograd.grad(F.mse_loss(model(x), y), list(model.parameters()))
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient

    report, start, p = stepped(model, CurvatureRadius("mse"), act)
    assert report.ratio == pytest.approx(dense_ratio(model, start, p, x, lambda z: F.mse_loss(z, y)), rel=1e-10)


def test_of_two_optimizers_one_may_step_without_the_scaler():
    model, x, y = network(), inputs(), labels("reals")
    one, other = (torch.optim.SGD(layer.parameters(), lr=0.3) for layer in (model[0], model[2]))
    scaler, start = torch.amp.GradScaler("cpu", init_scale=2.0**12), parameters(model)
    guard = attach(model, [one, other], radius=CurvatureRadius("mse"), policy=Watch())
    scaler.scale(F.mse_loss(model(x), y)).backward()
    scaler.step(one)
    scaler.unscale_(other)
    other.step()
    p = {name: q - start[name] for name, q in parameters(model).items()}
    assert guard.last.ratio == pytest.approx(dense_ratio(model, start, p, x, lambda z: F.mse_loss(z, y)), rel=1e-9)


def test_classes_masked_by_minus_infinity_have_no_part():
    x, y = inputs(), torch.tensor([0, 1, 2, 0, 1, 2])
    ratios = []
    for masked in (True, False):
        model = network()
        read = (lambda z: F.pad(z[..., :3], (0, 1), value=-math.inf)) if masked else (lambda z: z[..., :3])
        whole = nn.Sequential(model, Reader(read))
        ratios.append(stepped(whole, CurvatureRadius(), lambda _: F.cross_entropy(whole(x), y).backward())[0].ratio)  # noqa: B023
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-12)


class Reader(nn.Module):
    def __init__(self, read):
        super().__init__()
        self.read = read

    def forward(self, z):
        return self.read(z)


def test_logits_that_the_loss_does_not_go_through_are_refused():
    model, x, y = network(), inputs(), labels("classes")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attach(model, optimizer, policy=Throttle(), logits=lambda z: 2 * z)
    F.cross_entropy(model(x), y).backward()
    with pytest.raises(MeasurementError, match="not seen"):
        optimizer.step()


def test_half_mse_of_one_dimension_is_refused():
    model = nn.Sequential(nn.Linear(5, 1), Reader(lambda z: z.squeeze(-1))).double()
    with pytest.raises(MeasurementError, match="samples, 1"):
        stepped(
            model, CurvatureRadius("half_mse"), lambda _: model(inputs()).square().sum().backward(), policy=Cap(1.0)
        )


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.other = nn.Linear(5, 7), nn.Linear(7, 4), nn.Linear(7, 1)
        self.double()

    def forward(self, x):
        features = self.body(x).tanh()
        return self.head(features), self.other(features)


def penalised(model, x, y):
    penalty = sum(q.square().sum() for q in model.parameters())
    return F.cross_entropy(model(x)[0], y) + penalty


def two_headed(model, x, y):
    one, other = model(x)
    return F.cross_entropy(one, y) + 10 * other.square().mean()


@pytest.mark.parametrize("loss", [penalised, two_headed])
def test_parts_of_the_loss_that_do_not_go_through_the_logits_are_said(loss):
    model, x, y = TwoHeads(), inputs(), labels("classes")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    attach(model, optimizer, policy=Throttle(), logits=lambda output: output[0])
    loss(model, x, y).backward()
    with pytest.warns(SafestepWarning, match="the loss has parts that do not go through these logits"):
        optimizer.step()
    optimizer.zero_grad()
    loss(model, x, y).backward()
    optimizer.step()  # said once


def test_gradients_left_in_place_are_said():
    model, x, y = network(), inputs(), labels("classes")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    F.cross_entropy(model(x), y).backward()
    attach(model, optimizer, policy=Throttle())
    F.cross_entropy(model(x), y).backward()  # adds to the first, which nobody has seen
    with pytest.warns(SafestepWarning, match="old gradients were left in place"):
        optimizer.step()


@pytest.mark.parametrize("options", [{"loss": "hinge"}, {"reduction": "none"}, {"scale": 0.0}, {"scale": math.inf}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        CurvatureRadius(**options)


def test_one_output_is_no_cross_entropy():
    """Contract 4: an error, not r = 0, which would leave a regression unguarded."""
    model, x = nn.Linear(5, 1).double(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=50.0)
    attach(model, optimizer, policy=Throttle())
    F.mse_loss(model(x), torch.ones(6, 1, dtype=torch.float64)).backward()
    with pytest.raises(MeasurementError, match=r"one output .*'mse'"):
        optimizer.step()


def test_another_loss_than_cross_entropy_is_refused():
    model, x, y = network(), inputs(), labels("reals")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attach(model, optimizer, policy=Throttle())
    F.mse_loss(model(x), y).backward()
    with pytest.raises(LossMismatchError, match=r"no softmax cross-entropy.*'mse'"):
        optimizer.step()


@pytest.mark.parametrize("moved", [False, True])
def test_classes_in_another_dimension_are_found(moved):
    torch.manual_seed(0)
    model, x, y = nn.Conv2d(3, 5, 1).double(), torch.randn(2, 3, 4, 4).double(), torch.randint(0, 5, (2, 4, 4))
    options = {"logits": lambda z: z.movedim(1, -1)} if moved else {}
    radius, measured = HessianRadius(lambda: F.cross_entropy(model(x), y)), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def second_opinion(step, forwards, report):
        measured.append(radius.measure(Proposal(step, forwards), None)[0].ratio)
        return {}

    guard = attach(model, optimizer, radius=CurvatureRadius(), policy=Watch(), diagnostics=[second_opinion], **options)
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    assert guard.last.ratio == pytest.approx(measured[0], rel=1e-10)


def test_classes_that_the_model_moves_last_are_measured():
    torch.manual_seed(0)
    model, x, y = nn.Conv2d(3, 5, 1).double(), torch.randn(2, 3, 4, 4).double(), torch.randint(0, 5, (2, 4, 4))
    last = nn.Sequential(model, Reader(lambda z: z.movedim(1, -1)))
    loss = lambda z: F.cross_entropy(z.movedim(-1, 1), y)  # noqa: E731
    radii = CurvatureRadius(), HessianRadius(lambda: loss(last(x)))
    measured = []

    def both(step, forwards, report):
        measured.extend(radius.measure(Proposal(step, forwards), None)[0].ratio for radius in radii)
        return {}

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attach(last, optimizer, radius=CurvatureRadius(), policy=Watch(), diagnostics=[both])
    loss(last(x)).backward()
    optimizer.step()
    assert measured[0] == pytest.approx(measured[1], rel=1e-10)


# -- steps uphill -----------------------------------------------------------------------------------------------------


def uphill(policy):
    """A step against the gradient of the present batch: momentum of an earlier, opposite one."""
    model, x, y = network(), inputs(), labels("classes")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    guard = attach(model, optimizer, radius=CurvatureRadius(), policy=policy)
    for factor in (-1.0, 1e-3):
        optimizer.zero_grad()
        (factor * F.cross_entropy(model(x), y)).backward()
        before = parameters(model)
        optimizer.step()
    return guard, before, parameters(model), optimizer


QUIET = pytest.mark.filterwarnings("ignore:the gradient at the logits is")


@QUIET
@pytest.mark.parametrize("policy", [Cap(1e6), Pin(1.0), Throttle(), Throttle(order=1), Throttle(order=2)], ids=str)
def test_a_step_uphill_is_held_and_the_optimizer_moves_on(policy):
    guard, before, after, optimizer = uphill(policy)
    assert guard.last.status is Status.HELD
    assert guard.last.scale == guard.last.applied_ratio == 0.0
    assert all(torch.equal(before[name], after[name]) for name in before)
    buffer = next(iter(optimizer.state.values()))["momentum_buffer"]
    assert bool(buffer.any())


@QUIET
@pytest.mark.parametrize("policy", [Watch(), Watch(Cap(1.0)), Cap(math.inf)], ids=str)
def test_a_step_uphill_stands_where_nothing_is_too_long(policy):
    guard, before, after, _ = uphill(policy)
    assert guard.last.ratio == math.inf
    assert guard.last.scale == 1.0
    assert any(not torch.equal(before[name], after[name]) for name in before)


@QUIET
def test_what_a_throttle_would_do_about_a_step_uphill_is_recorded():
    assert uphill(Watch(Throttle()))[0].last.would_scale == 0.0


def test_a_step_uphill_is_held_where_the_softmax_is_too_sure_to_bend():
    """A sample that is wrong by 800 nats: its P is a one, and Var_P(a) a plain 0."""
    model, x = nn.Linear(1, 2, bias=False).double(), torch.ones(1, 1, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[400.0], [-400.0]]))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, maximize=True)
    guard = attach(model, optimizer, policy=Throttle())
    F.cross_entropy(model(x), torch.tensor([1])).backward()
    optimizer.step()
    assert guard.last.status is Status.HELD


def test_a_run_that_is_held_for_ever_is_said():
    model, x, y = network(), inputs(), labels("classes")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, maximize=True)
    guard = attach(model, optimizer, policy=Throttle())

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    steps(19)
    with pytest.warns(SafestepWarning, match="20 steps in a row were held"):
        steps(1)
    steps(30)  # said once
    assert set(guard.history["status"]) == {Status.HELD}


def test_a_step_that_moves_no_logit_is_unbounded():
    model, x = nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 4)).double(), inputs()
    nn.init.zeros_(model[2].weight)
    nn.init.constant_(model[0].bias, -100.0)  # no unit is active, and the head does not move
    model[2].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    guard = attach(model, optimizer, policy=Throttle())
    F.cross_entropy(model(x), labels("classes")).backward()
    optimizer.step()
    assert guard.last.status is Status.UNBOUNDED
    assert guard.last.scale == 1.0


def test_the_gradient_at_the_logits_lives_no_longer_than_the_step():
    import gc
    import weakref

    model, x, y = network(), inputs(), labels("classes")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attach(model, optimizer, policy=Throttle())
    seen = []
    z = model(x)
    z.register_hook(lambda gradient: seen.append(weakref.ref(gradient.untyped_storage())))
    F.cross_entropy(z, y).backward()
    del z
    optimizer.step()
    gc.collect()
    assert len(seen) == 1
    assert seen[0]() is None
