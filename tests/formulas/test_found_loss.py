"""Losses found from their gradient: torch's own losses as the truth, and what no gradient can tell."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from safestep.formulas.finding import FoundLoss, Refused
from safestep.formulas.found_loss import found_loss
from safestep.formulas.found_weights import found_bend, row_weights
from zoo import examples

SHAPES = st.sampled_from([(64, 10), (40, 3), (200, 2), (300, 40), (48, 700)])
TYPES = st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16])


def values(shape, size=1.0, dtype=torch.float32, seed=0):
    return (size * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def classes(shape, seed=1):
    return torch.randint(0, shape[1], shape[:1], generator=torch.Generator().manual_seed(seed))


def flags(shape, seed=2):
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).float()


def gradient(z, loss):
    z = z.detach().requires_grad_()
    return torch.autograd.grad(loss(z), z)[0]


def found(z, loss, **options):
    return found_loss(z, gradient(z, loss), **options)


@given(
    shape=SHAPES,
    dtype=TYPES,
    size=st.sampled_from([0.5, 1.0, 2.0]),
    reduction=st.sampled_from(["mean", "sum"]),
    scale=st.sampled_from([1.0, 4.0, 0.25, 0.3]),
    smoothing=st.sampled_from([0.0, 0.1, 0.2]),
    ignored=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_cross_entropy_with_reduction_scale_and_smoothing(
    shape, dtype, size, reduction, scale, smoothing, ignored, seed
):
    smoothing = 0.0 if shape[1] == 2 else smoothing  # of two classes it cannot be told
    z, y = values(shape, size, dtype, seed), classes(shape, seed + 1)
    if ignored:
        y[::3] = -100
    # float16 gradients of a mean underflow without a gradient scaler
    factor = 2.0**12 if dtype == torch.float16 and reduction == "mean" else 1.0

    def loss(z):
        return factor * scale * F.cross_entropy(z, y, reduction=reduction, label_smoothing=smoothing)

    seen = found(z, loss, loss_scale=factor)
    known = int((y >= 0).sum())
    assert isinstance(seen, FoundLoss)
    assert seen.loss == "cross_entropy"
    assert seen.uniform
    rounding = max(torch.finfo(dtype).eps, 1e-4)
    weight = scale / known if reduction == "mean" else scale
    assert seen.weight == pytest.approx(weight, rel=2 * rounding)
    assert seen.total == pytest.approx(known * weight, rel=2 * rounding)
    assert seen.smoothing == pytest.approx(smoothing, abs=2 * rounding)
    explained = seen.scale / known if seen.reduction == "mean" else seen.scale
    assert explained == pytest.approx(weight, rel=2 * rounding)
    if scale == 1.0:
        assert (seen.reduction, seen.scale) == (reduction, 1.0)


@given(shape=SHAPES, reduction=st.sampled_from(["mean", "sum"]), ignored=st.booleans(), seed=st.integers(0, 1000))
def test_class_weights(shape, reduction, ignored, seed):
    z, y = values(shape, seed=seed), classes(shape, seed + 1)
    if ignored:
        y[::3] = -100
    weight = torch.linspace(0.5, 2.0, shape[1])
    loss = lambda z: F.cross_entropy(z, y, weight=weight, reduction=reduction)  # noqa: E731
    seen, g = found(z, loss), gradient(z, loss)
    assert isinstance(seen, FoundLoss)
    assert not seen.uniform
    expected = torch.where(y >= 0, weight[y.clamp(min=0)], 0.0)
    expected = expected / expected.sum() if reduction == "mean" else expected
    assert torch.allclose(row_weights(z, g, seen), expected, rtol=1e-3)
    if reduction == "mean" and len(z) <= 256:  # all rows are looked at
        assert (seen.reduction, seen.scale) == ("mean", 1.0)


def test_weights_of_the_samples():
    z, y, weight = values((64, 10)), classes((64, 10)), torch.linspace(0.1, 3.0, 64)
    weight = weight[torch.randperm(64, generator=torch.Generator().manual_seed(4))]
    loss = lambda z: (weight * F.cross_entropy(z, y, reduction="none")).mean()  # noqa: E731
    seen = found(z, loss)
    assert seen.weights == "rows"
    assert torch.allclose(row_weights(z, gradient(z, loss), seen), weight / 64, rtol=1e-3)


@examples(20)
@given(shape=st.sampled_from([(64, 10), (96, 100)]), smoothing=st.sampled_from([0.0, 0.1]), seed=st.integers(0, 100))
def test_mixed_labels(shape, smoothing, seed):
    z, first, second = values(shape, seed=seed), classes(shape, seed + 1), classes(shape, seed + 2)
    ce = lambda z, y: F.cross_entropy(z, y, label_smoothing=smoothing)  # noqa: E731
    seen = found(z, lambda z: 0.3 * ce(z, first) + 0.7 * ce(z, second))
    assert (seen.loss, seen.reduction, seen.scale, seen.labels) == ("cross_entropy", "mean", 1.0, "mixed")
    assert seen.smoothing == pytest.approx(smoothing, abs=1e-3)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_soft_labels_have_the_simplest_weight(reduction):
    z, q = values((64, 10)), values((64, 10), 3.0, seed=5).softmax(-1)
    seen = found(z, lambda z: F.cross_entropy(z, q, reduction=reduction))
    assert (seen.loss, seen.reduction, seen.scale, seen.labels) == ("cross_entropy", reduction, 1.0, "soft")
    assert str(seen).endswith("soft labels")


def test_log_probabilities():
    z, y = values((64, 10)).log_softmax(-1), classes((64, 10))
    seen = found(z, lambda z: F.nll_loss(z, y))
    assert (seen.reduction, seen.scale, seen.labels) == ("mean", 1.0, "log")
    weight = torch.linspace(0.5, 2.0, 10)
    loss = lambda z: F.nll_loss(z, y, weight=weight)  # noqa: E731
    weighed = found(z, loss)
    assert torch.allclose(row_weights(z, gradient(z, loss), weighed), weight[y] / weight[y].sum())


def test_a_mean_over_ignored_rows_too():
    z, y = values((60, 10)), classes((60, 10))
    y[::3] = -100
    seen = found(z, lambda z: F.cross_entropy(z, y, reduction="none").mean())
    assert (seen.reduction, seen.scale) == ("sum", 1 / 60)


def test_one_row_has_the_same_mean_and_sum():
    z, y = values((1, 10)), torch.tensor([3])
    seen = [found(z, lambda z, how=how: F.cross_entropy(z, y, reduction=how)) for how in ("mean", "sum")]
    assert seen[0] == seen[1]
    assert (seen[0].reduction, seen[0].scale) == ("mean", 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_saturated_rows_spoil_nothing(dtype):
    z, y = values((64, 10), dtype=dtype), classes((64, 10))
    z[torch.arange(0, 64, 2), y[::2]] += 60.0  # P(label) = 1 to rounding: gradients of zero, or of rounding
    z[1, 5] = -math.inf
    y[1] = 2
    loss = lambda z: 256.0 * F.cross_entropy(z, y)  # noqa: E731
    seen = found(z, loss, loss_scale=256.0)
    # a gradient of exactly zero looks like an ignored label; where it may have underflowed it counts either way
    assert (seen.loss, seen.reduction) == ("cross_entropy", "mean")
    assert seen.weight == pytest.approx(1 / 64, rel=0.01)
    weights = row_weights(z, gradient(z, loss), seen, 256.0)
    assert torch.isfinite(weights).all()
    assert torch.allclose(weights[1::2], torch.tensor(1 / 64), rtol=0.02)


def test_a_padded_batch_of_many_classes_is_sampled():
    shape = (1000, 3000)
    z, y = values(shape), classes(shape)
    y[500:] = -100
    seen = found(z, lambda z: F.cross_entropy(z, y))
    assert (seen.reduction, seen.scale) == ("mean", 1.0)
    assert seen.weight == pytest.approx(1 / 500, rel=1e-4)


@given(
    shape=SHAPES,
    dtype=TYPES,
    reduction=st.sampled_from(["mean", "sum"]),
    scale=st.sampled_from([1.0, 4.0, 0.25]),
    positive=st.sampled_from([1.0, 3.0]),
    seed=st.integers(0, 1000),
)
def test_binary_cross_entropy(shape, dtype, reduction, scale, positive, seed):
    z, y = values(shape, dtype=dtype, seed=seed), flags(shape, seed + 1).to(dtype)
    factor = 2.0**12 if dtype == torch.float16 and reduction == "mean" else 1.0

    def loss(z):
        weight = torch.tensor(positive, dtype=dtype)
        return factor * scale * F.binary_cross_entropy_with_logits(z, y, pos_weight=weight, reduction=reduction)

    seen = found(z, loss, loss_scale=factor)
    assert isinstance(seen, FoundLoss)
    assert seen.loss == "bce"
    assert seen.uniform is (positive == 1.0)
    weight = scale / z.numel() if reduction == "mean" else scale
    assert seen.weight == pytest.approx(weight, rel=2 * max(torch.finfo(dtype).eps, 1e-4))
    assert (seen.reduction, seen.scale) == (reduction, scale) or scale != 1.0


SQUARES = {
    "mse": ("mse", "mean", F.mse_loss),
    "mse-sum": ("mse", "sum", lambda z, y: F.mse_loss(z, y, reduction="sum")),
    "half_mse": ("half_mse", "mean", lambda z, y: (z - y).square().sum() / (2 * len(z))),
    "half_mse-sum": ("half_mse", "sum", lambda z, y: (z - y).square().sum() / 2),
}


@pytest.mark.parametrize("targets", ["one-hot", "signs", "digits"])
@pytest.mark.parametrize("name", SQUARES)
@pytest.mark.parametrize("seed", range(3))
def test_squared_errors_of_few_labels(name, targets, seed):
    shape = (64, 10)
    z = values(shape, seed=seed)
    made = {
        "one-hot": lambda: F.one_hot(classes(shape), 10).float(),
        "signs": lambda: 2 * flags(shape) - 1,
        "digits": lambda: torch.randint(0, 6, shape, generator=torch.Generator().manual_seed(7)).float(),
    }
    y, (loss, reduction, function) = made[targets](), SQUARES[name]
    seen = found(z, lambda z: function(z, y))
    assert (seen.loss, seen.reduction, seen.scale) == (loss, reduction, 1.0)


def focal(z, y):
    losses = F.cross_entropy(z, y, reduction="none")
    return ((1 - (-losses).exp()).square() * losses).mean()


def advantages(z, y):
    return (values((64,), seed=9) * F.cross_entropy(z, y, reduction="none")).mean()


REFUSED = {
    "policy-gradient": (advantages, "either sign"),
    "maximised": (lambda z, y: -F.cross_entropy(z, y), "either sign"),
    "focal": (focal, "focal"),
    "temperature": (lambda z, y: F.cross_entropy(z / 0.5, y), "2 times the logits"),
    "hinge": (F.multi_margin_loss, "another loss"),
    "l1": (lambda z, y: F.l1_loss(z, values((64, 10), seed=3)), "absolute errors"),
    "huber": (lambda z, y: F.huber_loss(z, values((64, 10), seed=3), delta=0.5), "absolute errors"),
    "squared-errors": (lambda z, y: F.mse_loss(z, values((64, 10), seed=3)), "looks like other losses"),
    "log-cosh": (lambda z, y: (z - values((64, 10), seed=3)).cosh().log().mean(), "looks like other losses"),
    "soft-flags": (
        lambda z, y: F.binary_cross_entropy_with_logits(z, values((64, 10), seed=3).sigmoid()),
        "looks like other losses",
    ),
    "two-losses": (
        lambda z, y: F.cross_entropy(z, y) + F.mse_loss(z, values((64, 10), seed=3)),
        "looks like other losses",
    ),
    "smoothing-with-class-weights": (
        lambda z, y: F.cross_entropy(z, y, weight=torch.linspace(0.5, 3, 10), label_smoothing=0.2, reduction="sum"),
        "label smoothing together with class weights",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_why(name):
    loss, why = REFUSED[name]
    seen = found(values((64, 10), 1.5), lambda z: loss(z, classes((64, 10))))
    assert isinstance(seen, Refused)
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(seen.reason)


def test_two_classes_with_soft_labels_are_refused():
    z, q = values((64, 2)), values((64, 2), seed=3).softmax(-1)
    assert "two classes" in found(z, lambda z: F.cross_entropy(z, q)).reason


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_nothing_to_go_by_is_not_final(value):
    seen = found_loss(values((8, 4)), torch.full((8, 4), value))
    assert isinstance(seen, Refused)
    assert not seen.final


LOSSES = {
    "mean": F.cross_entropy,
    "weights": lambda z, y: F.cross_entropy(z, y, weight=torch.tensor([1.0, 2.0, 4.0, 0.5]).to(z)),
    "samples": lambda z, y: (
        torch.rand(30, generator=torch.Generator().manual_seed(3)).to(z) * F.cross_entropy(z, y, reduction="none")
    ).sum(),
    "flags": lambda z, y: F.binary_cross_entropy_with_logits(z, F.one_hot(y, 4).to(z), pos_weight=torch.tensor(5.0)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_bend_is_that_of_the_hessian(name):
    z, a, y = values((30, 4), dtype=torch.float64), values((30, 4), dtype=torch.float64, seed=8), classes((30, 4))
    loss = lambda z: LOSSES[name](z, y)  # noqa: E731
    seen, g = found(z, loss), gradient(z, loss)
    hessian = torch.autograd.functional.hessian(loss, z).reshape(z.numel(), -1)
    assert found_bend(z, a, g, seen).sum() == pytest.approx((a.flatten() @ hessian @ a.flatten()).item(), rel=1e-10)
