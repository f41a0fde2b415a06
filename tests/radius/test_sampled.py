"""Statistics of a step from some rows of its batch: right, unbiased, and given up where they would not be."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import safestep
from radius.dense_curvature import LOSS, LOSSES, dense_ratio, inputs, labels
from radius.dense_curvature import network as small
from safestep import (
    Cap,
    CurvatureRadius,
    KLRadius,
    Pin,
    SoftmaxRadius,
    Status,
    Tightest,
    Watch,
    attach,
    default_limit,
)
from safestep.formulas.quadratic_ratio import softmax_bend
from safestep.formulas.softmax_ratio import spread
from safestep.radius import difference

ROWS, CLASSES = 64, 5


def network(*more):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), *more, nn.Linear(12, CLASSES)).double()


def batches(count, rows=ROWS, seed=1):
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(6, CLASSES, dtype=torch.float64, generator=generator)
    for _ in range(count):
        x = torch.randn(rows, 6, dtype=torch.float64, generator=generator)
        yield x, (x @ teacher).argmax(-1)


def steps(model, radius, count=12, *, policy=None, lr=0.05, between=lambda model: None, optimizer=None):
    """Train, and return of each step its report, start, displacement and batch."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=lr)
    guard, found = attach(model, optimizer, radius=radius, policy=policy or Watch()), []
    for x, y in batches(count):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        between(model)
        start = {name: q.detach().clone() for name, q in model.named_parameters()}
        optimizer.step()
        p = {name: q.detach() - start[name] for name, q in model.named_parameters()}
        found.append((guard.last, start, p, x, y))
    return found


def sampled(found):
    return [one for one in found if "rows" in one[0].method or "probe" in one[0].method]


def jvp(model, start, p, x):
    call = lambda parameters: torch.func.functional_call(model, parameters, (x,))  # noqa: E731
    return torch.func.jvp(call, (start,), (p,))


def rows_at(step, one_in):
    return slice(step % one_in, None, one_in)


@pytest.mark.parametrize("clip", [math.inf, 1e-3])
def test_the_curvature_is_that_of_the_sampled_rows_along_the_gradient_of_all(clip):
    """A dense twin in float64; clipping changes the gradients, and not r."""
    found = sampled(steps(model := network(), CurvatureRadius(sample=16), between=_clip(clip), lr=1e-3))
    assert len(found) == 8  # not the 1st, 2nd, 4th, 8th
    for report, start, p, x, y in found:
        z, a = jvp(model, start, p, x)
        z.requires_grad_()
        (g,) = torch.autograd.grad(F.cross_entropy(z, y), z)
        bend = softmax_bend(z.detach(), a)[rows_at(report.step, 4)].mean()
        expected = float(bend / (-2 * (g * a).sum()))
        assert report.ratio == pytest.approx(expected, rel=0.02)  # a difference at the end of a step that is inside
        assert report.predicted_kl == pytest.approx(float(bend) / 2, rel=0.04)
        assert not report.exact
        assert report.standard_error > 0.0


def _clip(most):
    return lambda model: nn.utils.clip_grad_norm_(model.parameters(), most)


def test_the_mean_spread_is_that_of_the_sampled_rows():
    found = steps(model := network(), SoftmaxRadius(over="mean", sample=16), lr=1e-3)
    assert {report.method for report, *_ in found} == {"0.25 of the rows/train/mean"}
    for report, start, p, x, _ in found:
        _, a = jvp(model, start, p, x)
        assert report.ratio == pytest.approx(float(spread(a)[rows_at(report.step, 4)].mean()) / math.pi, rel=0.02)


@pytest.mark.filterwarnings("ignore:whether the loss multiplies")  # soft labels do not tell
@LOSS
def test_every_loss_has_its_weight(name):
    """As many entries as the batch has, or more, are the batch: by a probe and the gradients, in units of the loss."""
    (radius, loss, kind), model, x = LOSSES[name], small(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    guard = attach(model, optimizer, radius=replace(radius, sample=1000), policy=Watch())
    guard.audit(1.0)
    for _ in range(3):
        optimizer.zero_grad()
        loss(model(x), labels(kind)).backward()
        optimizer.step()
    assert guard.last.method == "probe/train"
    assert guard.last.ratio == pytest.approx(guard.last.extras["audited_ratio"], rel=0.01)
    assert guard.last.standard_error == 0.0


@pytest.mark.parametrize("method", ["exact", "probe"])
def test_the_mean_over_the_whole_batch_is_a_mean(method):
    found = steps(model := network(), SoftmaxRadius(over="mean", method=method), 3)
    for report, start, p, x, _ in found:
        _, a = jvp(model, start, p, x)
        assert report.ratio == pytest.approx(float(spread(a).mean()) / math.pi, rel=1e-9 if method == "exact" else 0.01)


def test_estimates_are_unbiased_and_their_errors_as_stated():
    """Of one batch in every offset, and of many batches: the bias stays within 2 %, the errors within theirs."""
    found = sampled(steps(model := network(), CurvatureRadius(sample=16), 200, lr=1e-3))
    ratios, scores = [], []
    for report, start, p, x, y in found:
        exact = dense_ratio(model, start, p, x, lambda z, y=y: F.cross_entropy(z, y))
        ratios.append(report.ratio / exact)
        scores.append((report.ratio - exact) / report.standard_error)
    assert sum(ratios) / len(ratios) == pytest.approx(1.0, abs=0.02)
    assert sum(score * score for score in scores) / len(scores) == pytest.approx(1.0, abs=0.35)


@pytest.mark.parametrize(
    "radius", [CurvatureRadius(), CurvatureRadius(scale=3.0), KLRadius(), CurvatureRadius(sample=16)]
)
def test_the_predicted_divergence_is_of_the_applied_step(radius):
    """Half the mean variance of what was written to the parameters, whichever radius tells it."""
    policy = Cap(1e-3)
    for report, start, p, x, _ in steps(model := network(), radius, 4, policy=policy, lr=1e-3):
        z, a = jvp(model, start, p, x)  # p as applied
        if "rows" not in report.method:
            assert report.predicted_kl == pytest.approx(float(softmax_bend(z, a).mean()) / 2, rel=1e-6)
    assert report.status == "capped"


def test_a_penalty_in_the_loss_is_noticed_and_the_whole_batch_measured():
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    guard = attach(model, optimizer, radius=CurvatureRadius(sample=16), policy=Watch())

    def train():
        for x, y in batches(6):
            optimizer.zero_grad()
            (F.cross_entropy(model(x), y) + sum(q.square().sum() for q in model.parameters())).backward()
            optimizer.step()

    with pytest.warns(safestep.SafestepWarning, match="parts that do not go through these logits"):
        train()
    assert not any("rows" in report.method for report in guard.history)


def test_layerwise_clipping_is_no_factor_and_the_whole_batch_is_measured():
    def layerwise(model):
        for q in model.parameters():
            nn.utils.clip_grad_norm_([q], 1e-3)

    assert not sampled(steps(network(), CurvatureRadius(sample=16), 6, between=layerwise))


def test_gradients_zeroed_before_the_last_optimizer_stepped_are_noticed():
    model = network()
    first, last = torch.optim.Adam(model[0].parameters(), lr=0.01), torch.optim.Adam(model[2].parameters(), lr=0.01)
    guard = attach(model, [first, last], radius=CurvatureRadius(sample=16), policy=Watch())
    for x, y in batches(6):
        F.cross_entropy(model(x), y).backward()
        for optimizer in (first, last):
            optimizer.step()
            optimizer.zero_grad()
    assert not any("rows" in report.method for report in guard.history)


def test_batchnorm_is_measured_on_the_whole_batch():
    found = sampled(steps(model := network(nn.BatchNorm1d(12)), CurvatureRadius(sample=16)))
    assert {report.method for report, *_ in found} == {"probe/train"}
    for report, start, p, x, y in found:
        exact = dense_ratio(model, start, p, x, lambda z, y=y: F.cross_entropy(z, y))
        assert report.ratio == pytest.approx(exact, rel=0.02)
        assert report.standard_error == 0.0


def test_dropout_draws_masks_of_its_own_for_both_ends():
    """A fresh mask at one end only would be 4 to 56 times too large."""
    model = network(nn.Dropout(0.5))
    found = sampled(steps(model, CurvatureRadius(sample=16), 100, lr=1e-3))
    assert {report.method for report, *_ in found} == {"0.25 of the rows/train"}
    exact = steps(network(nn.Dropout(0.5)), CurvatureRadius(), 100, lr=1e-3)
    mean = lambda found: sum(report.predicted_kl for report, *_ in found) / len(found)  # noqa: E731
    middle = lambda found: sorted(report.ratio for report, *_ in found)[len(found) // 2]  # noqa: E731
    assert middle(found) == pytest.approx(middle(exact), rel=0.15)
    assert math.isfinite(mean(found))


class Sequences(nn.Module):
    """A recurrent network over time in the first dimension: its rows are moments, which do not go alone."""

    def __init__(self, *, batch_first):
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(6, 8, batch_first=batch_first)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(self.lstm(x)[0])


@pytest.mark.parametrize("batch_first", [True, False])
def test_moments_of_a_recurrent_network_are_not_run_alone(batch_first):
    model = Sequences(batch_first=batch_first)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    guard = attach(model, optimizer, radius=CurvatureRadius(sample=32), policy=Watch())
    for _ in range(6):
        x, y = torch.randn(16, 16, 6), torch.randint(0, CLASSES, (256,))
        optimizer.zero_grad()
        F.cross_entropy(model(x).flatten(0, 1), y).backward()
        optimizer.step()
    assert guard.last.method == ("0.12 of the rows/train" if batch_first else "probe/train")


def test_of_several_micro_batches_rows_are_drawn_through():
    """p.Gp of every n-th row of all micro-batches, g.p of their accumulated gradients."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    guard = attach(model, optimizer, radius=CurvatureRadius(sample=16), policy=Watch())
    audit = guard.audit(1.0)
    for parts in zip(*[batches(24)] * 4, strict=True):
        optimizer.zero_grad()
        for x, y in parts:
            (F.cross_entropy(model(x[:16]), y[:16]) / 4).backward()
        optimizer.step()
    reports = [report for report in guard.history if "rows" in report.method]
    assert len(reports) == 3
    assert not audit.unmeasured
    for report in reports:
        exact = report.extras["audited_ratio"] / report.scale
        assert abs(report.ratio - exact) < 5 * report.standard_error + 0.02 * exact


@pytest.mark.parametrize(("sample", "way"), [(16, "0.25 of the rows"), (ROWS, "probe")])
def test_both_limits_of_the_default_ask_one_forward(monkeypatch, sample, way):
    """So do batches that are no larger than the sample."""
    calls, run = [], difference.run
    monkeypatch.setattr(difference, "run", lambda *arguments: calls.append(1) or run(*arguments))
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    guard = attach(model, optimizer, radius=default_limit(sample=sample), policy=Pin(0.01))  # measures every step
    for x, y in batches(11):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        calls.clear()
        optimizer.step()
    assert way in guard.last.method
    assert len(calls) == 2  # both ends: logits larger than the parameters are not kept
    assert guard.last.predicted_kl > 0.0


def test_a_run_with_samples_resumes_bit_for_bit():
    radius = default_limit(sample=16)

    def run(model, optimizer, guard, data):
        for x, y in data:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        return [q.detach().clone() for q in model.parameters()]

    def made():
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.3)
        return model, optimizer, attach(model, optimizer, radius=radius, policy=Cap(1.0))

    data = list(batches(12))
    whole = run(*made(), data)
    model, optimizer, guard = made()
    run(model, optimizer, guard, data[:5])
    saved = model.state_dict(), optimizer.state_dict(), guard.state_dict()
    again, other, resumed = made()
    for part, state in zip((again, other, resumed), saved, strict=True):
        part.load_state_dict(state)
    assert all(map(torch.equal, run(again, other, resumed, data[5:]), whole))


def test_where_the_loss_has_no_default_limit_another_takes_over_and_says_so_once():
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.3)
    guard = attach(model, optimizer, radius=default_limit(), policy=Cap(1.0))

    def train():
        for x, y in batches(5):
            signs = torch.where(torch.arange(len(y)) % 3 == 0, -0.5, 1.0).double()  # advantages of a policy gradient
            optimizer.zero_grad()
            (signs * F.cross_entropy(model(x), y, reduction="none")).mean().backward()
            optimizer.step()

    with pytest.warns(safestep.SafestepWarning, match="default limit.*either sign.*SoftmaxRadius") as said:
        train()
    assert len(said) == 1
    assert guard.last.applied_ratio <= 1.0 + 1e-3


FOUND = {
    "smoothed, scaled": lambda z, y: 3 * F.cross_entropy(z, y, label_smoothing=0.1),
    "sum": lambda z, y: F.cross_entropy(z, y, reduction="sum"),
    "class weights": lambda z, y: F.cross_entropy(z, y, weight=torch.linspace(0.5, 2.0, CLASSES).double()),
    "binary": lambda z, y: F.binary_cross_entropy_with_logits(z, F.one_hot(y, CLASSES).double()),
    "squares": lambda z, y: F.mse_loss(z, F.one_hot(y, CLASSES).double()),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_sample_is_of_the_loss_that_was_found(name):
    """Weights of the classes are read off all rows; else as many entries as the batch has are the batch."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = attach(model, optimizer, radius=CurvatureRadius(sample=1000), policy=Watch())
    guard.audit(1.0)
    for x, y in batches(3):
        optimizer.zero_grad()
        FOUND[name](model(x), y).backward()
        optimizer.step()
    assert (guard.last.method == "probe/train") is (name != "class weights")
    assert guard.last.ratio == pytest.approx(guard.last.extras["audited_ratio"], rel=0.01)


def test_the_tightest_has_the_error_in_units_of_its_target():
    radius = CurvatureRadius(sample=16)
    plain = sampled(steps(network(), radius, policy=Pin(0.01)))[-1][0]
    tightest = sampled(steps(network(), Tightest({radius: 0.5}), policy=Pin(0.02)))[-1][0]
    assert tightest.standard_error == pytest.approx(2 * plain.standard_error)


@pytest.mark.parametrize(
    "radius",
    [CurvatureRadius(sample=16), SoftmaxRadius(over="mean", sample=16), default_limit(sample=16)],
    ids=["curvature", "mean spread", "default"],
)
def test_steps_far_inside_are_not_measured_and_their_prediction_holds(radius):
    """At most seven in a row; a long step among them is measured, and cut."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    guard = attach(model, optimizer, radius=radius, policy=Cap(0.2))
    guard.audit(1.0)
    for step, (x, y) in enumerate(batches(60)):
        optimizer.param_groups[0]["lr"] = 10.0 if step == 45 else 1e-4
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    reports = list(guard.history)
    skipped = [report for report in reports if report.predicted]
    assert len(skipped) > 30
    assert max(report.age for report in skipped) == 7
    for report in skipped:
        assert report.extras["audited_ratio"] < 2 * report.predicted_ratio < 0.2 * 1.0001
        assert report.scale == 1.0
    assert reports[45].status is Status.CAPPED
    assert not reports[45].predicted


def test_radii_that_share_a_sample_keep_their_own_memory():
    """In either order both skip what is far inside."""
    radii = [(CurvatureRadius(sample=16), 0.5), (SoftmaxRadius(over="mean", sample=16), 0.5)]
    for order in (radii, radii[::-1]):
        found = steps(network(), Tightest(dict(order)), 24, policy=Cap(1.0), lr=1e-4)
        assert sum(report.predicted for report, *_ in found) > 8


def test_what_one_radius_has_run_the_other_measures_too(monkeypatch):
    """Both are due at the same steps: rows that were run anyway cost nothing."""
    calls, run = [], difference.run
    monkeypatch.setattr(difference, "run", lambda *arguments: calls.append(1) or run(*arguments))
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    limits = {CurvatureRadius(sample=16): 1e9, SoftmaxRadius(over="mean", sample=16): 1.0}
    guard = attach(model, optimizer, radius=Tightest(limits))
    ran = []
    for x, y in batches(40):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        calls.clear()
        optimizer.step()
        ran.append(len(calls) > 0)
    ages = [report.age for report in guard.history]
    assert all(report.method.startswith("SoftmaxRadius") for report in guard.history)
    assert sorted(set(ages[-20:])) == [*range(8)]
    assert ran[-20:] == [age == 0 for age in ages[-20:]]


def test_whoever_wants_to_know_r_measures_every_step():
    for policy in (Pin(1e-3), Watch()):
        found = steps(network(), CurvatureRadius(sample=16), policy=policy, lr=1e-4)
        assert not any(report.predicted for report, *_ in found)
