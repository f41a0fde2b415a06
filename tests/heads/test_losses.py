"""What the loss is, and along which dimension: told by the gradient; what r means nothing for is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from heads.one_step import EXACT, METHODS, Net, batch, step
from safestep import (
    Cap,
    CurvatureRadius,
    LossMismatchError,
    MeasurementError,
    SafestepWarning,
    SoftmaxRadius,
    Status,
    Watch,
    attach,
)
from zoo.truth import Truth


class Segmenter(nn.Module):
    """Classes in the second dimension."""

    def __init__(self, dims=2):
        super().__init__()
        self.layer = (nn.Conv1d, nn.Conv2d)[dims - 1](2, 5, 1)

    def forward(self, x):
        return self.layer(x)


@METHODS
@pytest.mark.parametrize("shape", [(3, 2, 6), (3, 2, 4, 4), (3, 2, 5), (3, 2, 5, 5)])
def test_the_class_dimension_is_the_one_whose_gradient_sums_to_zero(shape, radius):
    torch.manual_seed(1)
    model, x = Segmenter(len(shape) - 2), torch.randn(shape)
    y = torch.randint(5, (shape[0], *shape[2:]))
    y[0] = -100
    optimizer = torch.optim.SGD(model.parameters(), lr=3.0)
    guard = attach(model, optimizer, radius=radius, policy=Watch())
    truth = Truth(model, lambda out: [out.movedim(1, -1)], rows=y != -100)
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    assert guard.last.ratio == pytest.approx(truth.ratio(model, x), rel=1e-4 if radius is EXACT else 0.03)


@METHODS
@pytest.mark.parametrize("factor", [1.0, 5.0])
def test_sigmoids_are_told_by_their_gradient(factor, radius):
    torch.manual_seed(1)
    model = Net(lambda h, a: a, 4)
    targets = (torch.rand(7, 4) < 0.4).float()
    loss = lambda out, y: F.binary_cross_entropy_with_logits(factor * out, targets)  # noqa: E731
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    guard = attach(model, optimizer, radius=radius, policy=Watch())
    truth, (x, y) = Truth(model, lambda out: [factor * out]), batch()
    loss(model(x), y).backward()
    optimizer.step()
    assert guard.last.ratio == pytest.approx(truth.ratio(model, x, sigmoid=True), rel=1e-3 if radius is EXACT else 0.03)


REGRESSIONS = {
    "squared error": lambda out, y: F.mse_loss(out, torch.ones_like(out) * torch.arange(4.0)),
    "sum of squares": lambda out, y: out.square().sum(),
    "soft labels of sigmoids": lambda out, y: F.binary_cross_entropy_with_logits(out, torch.rand(7, 4)),
    "logsumexp": lambda out, y: out.logsumexp(-1).mean(),
}


@METHODS
@pytest.mark.parametrize("loss", REGRESSIONS)
def test_a_loss_that_r_means_nothing_for_is_refused_never_capped(loss, radius):
    torch.manual_seed(1)
    model = Net(lambda h, a: a, 4)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(LossMismatchError, match=r"CurvatureRadius\('mse'\)"):
        step(model, REGRESSIONS[loss], read=lambda out: [out], radius=radius, policy=Cap(1.0))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    with pytest.warns(SafestepWarning, match="no softmax cross-entropy"):
        guard, _ = step(Net(lambda h, a: a, 4), REGRESSIONS[loss], read=lambda out: [out], radius=radius, steps=2)
    assert {report.status for report in guard.history} == {Status.UNMEASURED}


def classifier():
    """Return a network whose logits have grown apart, as those of a trained classifier: their sum stays what it was."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 4))
    with torch.no_grad():
        last = model[-1]
        last.weight.mul_(30.0).sub_(0.96 * last.weight.mean(0))
        last.bias.mul_(30.0).sub_(0.96 * last.bias.mean())
    return model


@METHODS
def test_squared_errors_of_what_was_a_classifier_are_no_softmax(radius):
    """Rows of z - y almost sum to zero there."""
    model, (x, _) = classifier(), batch()
    z = model(x)
    rows = z.sum(-1).abs().sum() / z.abs().sum()
    assert 0.01 < rows < 0.1
    with pytest.raises(LossMismatchError):
        step(model, lambda z, y: z.square().mean(), read=lambda out: [out], radius=radius, policy=Cap(1.0))


@METHODS
@pytest.mark.parametrize("penalty", [1e-4, 1e-3])
def test_a_small_penalty_on_the_normaliser_leaves_it_a_softmax(penalty, radius):
    """The z-loss of large language models: rows sum to its part of the gradient, not to zero."""
    loss = lambda z, y: F.cross_entropy(z, y) + penalty * z.logsumexp(-1).square().mean()  # noqa: E731
    guard, truth = step(classifier(), loss, read=lambda out: [out], radius=radius, lr=0.1)
    assert guard.last.ratio == pytest.approx(truth, rel=0.02)
    assert [head.kind for head in guard.heads] == ["softmax"]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_an_adaptive_softmax_is_not_taken_for_one_sample():
    torch.manual_seed(1)
    model = nn.AdaptiveLogSoftmaxWithLoss(5, 12, cutoffs=[4, 8])
    optimizer, (x, y) = torch.optim.SGD(model.parameters(), lr=1.0), batch(classes=12)
    attach(model, optimizer)
    model(x, y).loss.backward()
    with pytest.raises(MeasurementError):
        optimizer.step()


def test_log_probabilities_are_right_as_they_are():
    torch.manual_seed(1)
    model = Net(lambda h, a: a.log_softmax(-1), 4)
    guard, truth = step(model, F.nll_loss, read=lambda out: [out])
    assert guard.last.ratio == pytest.approx(truth, rel=1e-4)


@pytest.mark.parametrize("told", ["mse", "half_mse"])
def test_a_cross_entropy_is_no_squared_error(told):
    torch.manual_seed(1)
    with pytest.raises(LossMismatchError, match="CurvatureRadius\\('cross_entropy'\\)"):
        step(
            Net(lambda h, a: a, 4),
            F.cross_entropy,
            read=lambda out: [out],
            radius=CurvatureRadius(told),
            policy=Cap(1.0),
        )


STARTS = {
    "rate zero": lambda optimizer, out, y: (
        optimizer.param_groups[0].update(lr=0.0),
        F.mse_loss(out, torch.ones_like(out)),
    )[1],
    "ignored rows": lambda optimizer, out, y: F.cross_entropy(out, torch.full_like(y, -100), reduction="sum"),
    "student equal to teacher": lambda optimizer, out, y: F.cross_entropy(out, out.detach().softmax(-1)),
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    "radius", [EXACT, SoftmaxRadius(), CurvatureRadius("cross_entropy")], ids=["exact", "tiered", "curvature"]
)
def test_evidence_is_looked_for_until_there_is_some(start, radius):
    """The first gradient says nothing; the loss of the later ones is a squared error, and is not overlooked."""
    torch.manual_seed(1)
    model, (x, y) = Net(lambda h, a: a, 4), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = attach(model, optimizer, radius=radius, policy=Cap(1e9))
    STARTS[start](optimizer, model(x), y).backward()
    if start == "rate zero":
        optimizer.step()
        assert guard.last.status is Status.STILL
    else:
        optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.zero_grad()
    F.mse_loss(model(x), torch.ones(7, 4) * torch.arange(4.0)).backward()
    with pytest.raises(LossMismatchError):
        optimizer.step()


def test_a_loss_that_changes_in_mid_run_is_found_in_time():
    torch.manual_seed(1)
    model, (x, y) = Net(lambda h, a: a, 4), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    attach(model, optimizer, radius=EXACT, policy=Cap(1e9))
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    def go_on():
        for _ in range(20):
            optimizer.zero_grad()
            F.mse_loss(model(x), torch.ones(7, 4) * torch.arange(4.0)).backward()
            optimizer.step()

    with pytest.raises(LossMismatchError):
        go_on()
