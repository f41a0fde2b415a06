"""The curvature radius by the gradient at the logits: which gradients count, scalers, and what does not fit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from radius.dense_curvature import dense_ratio, inputs, labels, network, parameters, stepped
from safestep import (
    Cap,
    CurvatureRadius,
    HessianRadius,
    MeasurementError,
    SafestepWarning,
    Throttle,
    Watch,
    attach,
)
from safestep.errors import LossMismatchError
from safestep.recording.proposal import Proposal

NAMED = CurvatureRadius("cross_entropy")


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
        stepped(model := network(), NAMED, added(model, x, y))
    model, doubled = network(), network()
    report, *_ = stepped(model, CurvatureRadius(scale=2.0), added(model, x, y))
    whole, *_ = stepped(doubled, CurvatureRadius(scale=2.0), lambda _: (2 * F.cross_entropy(doubled(x), y)).backward())
    assert report.ratio == pytest.approx(whole.ratio, rel=1e-12)


def test_a_forgotten_sum_is_noticed():
    model, x, y = network(), inputs(), labels("classes")
    with pytest.warns(SafestepWarning, match="6 times"):
        stepped(model, NAMED, lambda _: F.cross_entropy(model(x), y, reduction="sum").backward())


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
    with pytest.warns(
        SafestepWarning, match=r": old gradients were left in place .*zero_grad\(\).*, or the loss has parts"
    ):
        optimizer.step()


@pytest.mark.parametrize("options", [{"loss": "hinge"}, {"reduction": "none"}, {"scale": 0.0}, {"scale": math.inf}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        CurvatureRadius(**options)


def test_one_output_is_no_cross_entropy():
    """Contract 4: an error, not r = 0, which would leave a regression unguarded."""
    model, x = nn.Linear(5, 1).double(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=50.0)
    attach(model, optimizer, radius=NAMED, policy=Throttle())
    F.mse_loss(model(x), torch.ones(6, 1, dtype=torch.float64)).backward()
    with pytest.raises(MeasurementError, match=r"(?s)one output .*'mse'"):
        optimizer.step()


def test_another_loss_than_cross_entropy_is_refused():
    model, x, y = network(), inputs(), labels("reals")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attach(model, optimizer, radius=NAMED, policy=Throttle())
    F.mse_loss(model(x), y).backward()
    with pytest.raises(LossMismatchError, match=r"(?s)no softmax cross-entropy.*'mse'"):
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
