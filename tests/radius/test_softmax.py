"""The softmax radius on whole models, against a dense Jacobian in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from safestep import MeasurementError, SoftmaxRadius, Watch, attach
from safestep.errors import LossMismatchError

EXACT = SoftmaxRadius(method="exact")


def dense_spreads(model, start, displacement, x, weightless=None):
    """Spread of J p per sample by a dense Jacobian: one reverse pass for each logit."""
    names = [name for name, _ in model.named_parameters()]
    tensors = [start[name].double().requires_grad_() for name in names]

    def logits(*values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x.double(),))

    jacobians = torch.autograd.functional.jacobian(logits, tuple(tensors))
    a = sum((j.flatten(2) @ displacement[name].double().flatten()) for j, name in zip(jacobians, names, strict=True))
    high = a if weightless is None else a.masked_fill(weightless, -math.inf)
    low = a if weightless is None else a.masked_fill(weightless, math.inf)
    return high.amax(-1) - low.amin(-1)


def small_mlp(classes=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, classes)).double()


def step_with(model, batches, *, radius=None, lr=1.0, loss=cross_entropy, logits=None):
    """One SGD step over micro-batches under a guard that watches; returns its report, and theta_0 and p by name."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    guard = attach(model, optimizer, radius=radius or EXACT, policy=Watch(), logits=logits)
    for x, y in batches:
        loss(model(x), y).backward()
    optimizer.step()
    guard.detach()
    return guard.last, start, {name: p.detach() - start[name] for name, p in model.named_parameters()}


def batch(size=6, classes=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(size, 5, dtype=torch.float64, generator=generator),
        torch.randint(0, classes, (size,), generator=generator),
    )


def test_r_is_the_largest_spread_over_pi():
    model, (x, y) = small_mlp(), batch()
    report, start, p = step_with(model, [(x, y)])
    expected = dense_spreads(model, start, p, x).max().item() / math.pi
    assert report.ratio == pytest.approx(expected, rel=1e-12)
    assert report.exact
    assert report.method == "tangents/train"
    length = math.hypot(*(d.norm().item() for d in p.values()))
    assert report.step_length == pytest.approx(length, rel=1e-12)
    assert report.radius == pytest.approx(length / expected, rel=1e-12)


def test_micro_batches_add_up():
    model, pieces = small_mlp(), [batch(3, seed=1), batch(5, seed=2)]
    report, start, p = step_with(model, pieces)
    expected = max(dense_spreads(model, start, p, x).max().item() for x, _ in pieces) / math.pi
    assert report.ratio == pytest.approx(expected, rel=1e-12)


def test_ignored_samples_do_not_count():
    model, (x, y) = small_mlp(), batch()
    x[2] *= 50  # would set the maximum
    y[2] = -100
    report, start, p = step_with(model, [(x, y)])
    spreads = dense_spreads(model, start, p, x)
    assert spreads.argmax() == 2
    spreads[2] = 0
    assert report.ratio == pytest.approx(spreads.max().item() / math.pi, rel=1e-12)


def test_all_samples_count_where_none_has_a_gradient():
    model, (x, y) = small_mlp(), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.1)  # moves without a gradient
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    guard = attach(model, optimizer, radius=EXACT, policy=Watch())
    (cross_entropy(model(x), y) * 0.0).backward()
    optimizer.step()
    p = {name: q.detach() - start[name] for name, q in model.named_parameters()}
    assert guard.last.ratio == pytest.approx(dense_spreads(model, start, p, x).max().item() / math.pi, rel=1e-12)


def test_a_class_masked_by_minus_infinity_has_no_part():
    model, (x, y) = small_mlp(), batch()
    y.clamp_(max=2)
    mask = torch.tensor([False, False, False, True])
    report, start, p = step_with(nn.Sequential(model, Masked(mask)), [(x, y)], loss=cross_entropy)
    start, p = ({name[2:]: t for name, t in d.items()} for d in (start, p))
    expected = dense_spreads(model, start, p, x, weightless=mask).max().item() / math.pi
    assert report.ratio == pytest.approx(expected, rel=1e-12)


class Masked(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, z):
        return z.masked_fill(self.mask, -math.inf)


@pytest.mark.parametrize("quantile", [0.01, 0.5, 0.9, 1.0])
def test_a_quantile_is_an_actual_sample_and_never_called_exact(quantile):
    model, (x, y) = small_mlp(), batch(10)
    report, start, p = step_with(model, [(x, y)], radius=SoftmaxRadius(method="exact", over=quantile))
    ordered = dense_spreads(model, start, p, x).sort().values / math.pi
    assert report.ratio == pytest.approx(ordered[max(math.ceil(quantile * 10), 1) - 1].item(), rel=1e-12)
    assert report.exact == (quantile == 1.0)
    assert ("quantile" in report.method) == (quantile < 1.0)


def test_sigmoid_head_on_one_output():
    model, (x, y) = small_mlp(classes=1), batch()
    loss = lambda z, y: nn.functional.binary_cross_entropy_with_logits(z[:, 0], (y > 1).double())  # noqa: E731
    report, start, p = step_with(model, [(x, y)], radius=SoftmaxRadius(method="exact", head="sigmoid"), loss=loss)
    twin = nn.Sequential(model, Paired())
    start, p = ({f"0.{name}": t for name, t in d.items()} for d in (start, p))
    assert report.ratio == pytest.approx(dense_spreads(twin, start, p, x).max().item() / math.pi, rel=1e-12)


class Paired(nn.Module):
    """A sigmoid as the two-class softmax over (0, z)."""

    def forward(self, z):
        return torch.cat([torch.zeros_like(z), z], -1)


@pytest.mark.parametrize("shape", [(), (6,), (2, 3)])
def test_any_leading_sample_dimensions(shape):
    model, (x, y) = small_mlp(), batch()
    x, y = (x[0], y[0]) if shape == () else (x.reshape(*shape, 5), y.reshape(shape))
    report, start, p = step_with(model, [(x, y)], loss=lambda z, y: cross_entropy(z.reshape(-1, 4), y.reshape(-1)))
    expected = dense_spreads(model, start, p, x.reshape(-1, 5)).max().item() / math.pi
    assert report.ratio == pytest.approx(expected, rel=1e-12)


def test_eval_mode_measures_the_model_as_it_is_evaluated():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Dropout(0.5), nn.Linear(7, 4)).double()
    x, y = batch(8)
    reports = {}
    for mode in ("train", "eval"):
        torch.manual_seed(3)
        twin = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Dropout(0.5), nn.Linear(7, 4)).double()
        twin.load_state_dict(model.state_dict())
        reports[mode], start, p = step_with(twin, [(x, y)], radius=SoftmaxRadius(method="exact", mode=mode))
        assert reports[mode].method == {"train": "tangents/train", "eval": "forward-mode/eval"}[mode]
    twin.eval()
    assert reports["eval"].ratio == pytest.approx(dense_spreads(twin, start, p, x).max().item() / math.pi, rel=1e-12)
    assert reports["train"].ratio != pytest.approx(reports["eval"].ratio, rel=1e-2)


@pytest.mark.parametrize("size", [1e-15, 1e-30, 1e15, 1e30])
def test_extreme_steps_in_float32_neither_vanish_nor_overflow(size):
    model = small_mlp().float()
    x, y = (t.float() if t.is_floating_point() else t for t in batch())
    torch.nn.init.zeros_(model[2].bias)  # near zero the displacement is read off without rounding
    torch.nn.init.zeros_(model[2].weight)
    report, start, p = step_with(model, [(x, y)], lr=size)
    expected = dense_spreads(model, start, p, x).max().item() / math.pi
    assert report.ratio == pytest.approx(expected, rel=1e-4)
    assert 0.0 < report.ratio < math.inf


def test_a_regression_is_refused_and_the_step_undone():
    model, (x, _) = small_mlp(), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    attach(model, optimizer)
    nn.functional.mse_loss(model(x), torch.ones(6, 4, dtype=torch.float64)).backward()
    with pytest.raises(LossMismatchError, match=r"(?s)does not sum to zero.*CurvatureRadius\('mse'\)"):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_logits_callable_that_moves_the_classes():
    torch.manual_seed(0)
    model = nn.Conv1d(2, 4, 1).double()  # (batch, classes, positions)
    x, y = torch.randn(3, 2, 5, dtype=torch.float64), torch.randint(0, 4, (3, 5))
    report, _start, p = step_with(model, [(x, y)], logits=lambda z: z.movedim(1, -1))
    a = torch.einsum("ck,bkt->btc", p["weight"][..., 0], x) + p["bias"]
    expected = (a.amax(-1) - a.amin(-1)).max().item() / math.pi
    assert report.ratio == pytest.approx(expected, rel=1e-12)


def test_one_output_under_a_softmax_head_is_an_error_and_the_step_is_undone():
    model, (x, y) = small_mlp(classes=1), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = [p.detach().clone() for p in model.parameters()]
    attach(model, optimizer)
    nn.functional.mse_loss(model(x)[:, 0], (y > 1).double()).backward()
    with pytest.raises(ValueError, match="one output"):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_an_empty_batch_is_an_error():
    model = small_mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.1)
    attach(model, optimizer)
    cross_entropy(model(torch.zeros(0, 5).double()), torch.zeros(0).long(), reduction="sum").backward()
    with pytest.raises(MeasurementError, match="empty batch"):
        optimizer.step()


@pytest.mark.parametrize(
    "options",
    [
        {"method": "fast"},
        {"head": "relu"},
        {"mode": "test"},
        {"over": 0.0},
        {"over": 1.1},
        {"over": "median"},
        {"sample": 256},
        {"sync": "always"},
    ],
)
def test_options_are_checked_at_construction(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SoftmaxRadius(**options)
