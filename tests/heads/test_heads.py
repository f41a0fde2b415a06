"""Every head that the loss goes through, its class dimension and its factor: told by the gradient, never guessed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from safestep import (
    Cap,
    CurvatureRadius,
    HessianRadius,
    LossMismatchError,
    MeasurementError,
    SafestepWarning,
    SoftmaxRadius,
    Status,
    Tiers,
    Watch,
    attach,
)
from safestep.recording.proposal import Proposal
from zoo.truth import Truth

EXACT, PROBE = SoftmaxRadius(method="exact"), SoftmaxRadius(method="probe")
METHODS = pytest.mark.parametrize("radius", [EXACT, PROBE], ids=["exact", "probe"])


class Net(nn.Module):
    """Some heads on one body, returned in some parcel."""

    def __init__(self, parcel, *classes, scale=10.0):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.LayerNorm(8))
        self.heads = nn.ModuleList(nn.Linear(8, count) for count in classes)
        self.parcel, self.scale = parcel, scale

    def forward(self, x):
        hidden = self.body(x)
        outs = [head(hidden) * (self.scale if index else 1.0) for index, head in enumerate(self.heads)]
        return self.parcel(hidden, *outs)


def batch(rows=7, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 5, generator=generator), torch.randint(classes, (rows,), generator=generator)


def step(model, loss, *, read, lr=5.0, steps=1, rows=None, **options):
    """Train some steps; return the guard, and the true r of the last proposal (under Watch) or applied step."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    guard = attach(model, optimizer, **{"policy": Watch(), "radius": EXACT, **options})
    x, y = batch()
    for _ in range(steps):
        optimizer.zero_grad()
        truth = Truth(model, read, rows)
        loss(model(x), y).backward()
        optimizer.step()
    return guard, truth.ratio(model, x)


PARCELS = {
    "tuple": (lambda h, a, b: (a, b), lambda out: out),
    "dict": (lambda h, a, b: {"one": a, "two": b}, lambda out: list(out.values())),
    "nested": (lambda h, a, b: {"x": [a, {"deep": b}]}, lambda out: [out["x"][0], out["x"][1]["deep"]]),
    "object": (lambda h, a, b: SimpleNamespace(logits=a, aux_logits=b), lambda out: [out.logits, out.aux_logits]),
    "features first": (lambda h, a, b: (h, a, b), lambda out: out[1:]),
}


@METHODS
@pytest.mark.parametrize("parcel", PARCELS)
@pytest.mark.parametrize("classes", [(4, 4), (4, 9)])
def test_r_is_the_largest_over_all_heads(parcel, classes, radius):
    pack, read = PARCELS[parcel]
    torch.manual_seed(1)
    model = Net(pack, *classes)
    guard, truth = step(model, lambda out, y: sum(F.cross_entropy(z, y) for z in read(out)), read=read, radius=radius)
    assert guard.last.ratio == pytest.approx(truth, rel=1e-4 if radius is EXACT else 0.03)
    assert len(guard.heads) == 2


def test_the_step_is_kept_inside_for_both_heads():
    torch.manual_seed(1)
    model = Net(lambda h, a, b: (a, b), 4, 4)
    loss = lambda out, y: sum(F.cross_entropy(z, y) for z in out)  # noqa: E731
    guard, truth = step(model, loss, read=lambda out: out, policy=Cap(1.0), steps=3)
    assert guard.last.status is Status.CAPPED
    assert truth == pytest.approx(1.0, rel=1e-3)


def test_curvatures_of_heads_add_up():
    torch.manual_seed(1)
    model, (x, y) = Net(lambda h, a, b: (a, b), 4, 9).double(), batch()
    loss = lambda: sum(F.cross_entropy(z, y) for z in model(x.double()))  # noqa: E731
    optimizer, found = torch.optim.SGD(model.parameters(), lr=0.1), []
    gauss_newton = []

    def second_opinion(one, forwards, report):
        """p.Gp / (-2 g.p) by torch.func.jvp of all heads."""
        start = {name: one.start[p].detach() for name, p in model.named_parameters()}
        p = {name: q.detach() - start[name] for name, q in model.named_parameters()}
        call = lambda q: torch.func.functional_call(model, q, (x.double(),))  # noqa: E731
        zs, tangents = torch.func.jvp(call, (start,), (p,))
        bend = slope = 0.0
        for z, a in zip(zs, tangents, strict=True):
            weights = z.softmax(-1)
            bend += ((weights * a.square()).sum(-1) - (weights * a).sum(-1).square()).mean().item()
            slope += ((weights - F.one_hot(y, z.shape[-1])) * a).sum(-1).mean().item()
        gauss_newton.append(bend / (-2 * slope))
        return {}

    guard = attach(model, optimizer, radius=CurvatureRadius(), policy=Watch(), probes=[second_opinion])
    loss().backward()
    optimizer.step()
    found.append(guard.last.ratio)
    assert found == pytest.approx(gauss_newton, rel=1e-9)


def test_heads_that_are_trained_in_turns_are_each_measured():
    torch.manual_seed(1)
    model, (x, y) = Net(lambda h, a, b: (a, b), 4, 4), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    guard = attach(model, optimizer, radius=EXACT, policy=Watch())
    for index in range(4):
        optimizer.zero_grad()
        truth = Truth(model, lambda out, index=index: [out[index % 2]])
        F.cross_entropy(model(x)[index % 2], y).backward()
        optimizer.step()
        assert guard.last.ratio == pytest.approx(truth.ratio(model, x), rel=1e-4)


def test_the_tiered_method_measures_a_head_that_comes_late():
    torch.manual_seed(1)
    model, (x, y) = Net(lambda h, a, b: (a, b), 4, 4, scale=100.0), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    guard = attach(model, optimizer, radius=SoftmaxRadius(tiers=Tiers(every=1000)))
    for index in range(20):
        optimizer.zero_grad()
        out = model(x)
        (F.cross_entropy(out[0], y) + (F.cross_entropy(out[1], y) if index > 10 else 0.0)).backward()
        optimizer.step()
    assert guard.history[10].age > 0  # far inside, and left out
    assert guard.history[11].age == 0


def test_a_head_that_logits_leaves_out_is_named():
    torch.manual_seed(1)
    model = Net(lambda h, a, b: (a, b), 4, 4)
    loss = lambda out, y: sum(F.cross_entropy(z, y) for z in out)  # noqa: E731
    with pytest.raises(LossMismatchError, match=r"output\.model\[1\].*return all heads"):
        step(model, loss, read=lambda out: out, logits=lambda out: out[0], policy=Cap(1.0))


@pytest.mark.parametrize("both", [lambda out: (out[0], out[1]), lambda out: {"a": out[0], "b": out[1]}])
def test_logits_may_return_several_heads(both):
    torch.manual_seed(1)
    model = Net(lambda h, a, b: (a, b), 4, 9)
    loss = lambda out, y: sum(F.cross_entropy(z, y) for z in out)  # noqa: E731
    guard, truth = step(model, loss, read=lambda out: out, logits=both)
    assert guard.last.ratio == pytest.approx(truth, rel=1e-4)


def test_two_heads_in_one_tensor_are_told_apart_by_views():
    torch.manual_seed(1)
    model = Net(lambda h, a, b: torch.cat([a, b], -1), 4, 4)
    read = lambda out: [out[:, :4], out[:, 4:]]  # noqa: E731
    loss = lambda out, y: sum(F.cross_entropy(z, y) for z in read(out))  # noqa: E731
    guard, truth = step(model, loss, read=read, logits=read)
    assert guard.last.ratio == pytest.approx(truth, rel=1e-4)


def test_a_part_of_the_loss_that_is_no_softmax_is_said():
    torch.manual_seed(1)
    model = Net(lambda h, a, b: (a, b), 4, 1)
    loss = lambda out, y: F.cross_entropy(out[0], y) + out[1].square().mean()  # noqa: E731
    with pytest.warns(SafestepWarning, match=r"output\[1\] of shape \(7, 1\)"):
        guard, truth = step(model, loss, read=lambda out: out[:1])
    assert guard.last.ratio == pytest.approx(truth, rel=1e-4)


# -- a factor on the logits -------------------------------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize("factor", [64.0, 1 / 0.07, 0.25])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_factor_after_the_model_is_found_and_used(factor, classes, radius):
    torch.manual_seed(1)
    model = Net(lambda h, a: a / 10, classes)
    loss = lambda out, y: F.cross_entropy(factor * out, y % classes)  # noqa: E731
    guard, truth = step(model, loss, read=lambda out: [factor * out], lr=0.05, radius=radius)
    assert guard.last.ratio == pytest.approx(truth, rel=1e-3 if radius is EXACT else 0.03)
    assert f"times {factor:.4g}" in repr(guard)


def test_curvature_knows_the_factor_too():
    torch.manual_seed(1)
    model, (x, y) = nn.Linear(5, 4).double(), batch()
    loss = lambda: F.cross_entropy(8.0 * model(x.double()), y)  # noqa: E731
    found, radius = [], HessianRadius(loss)

    def second_opinion(one, forwards, report):
        found.append(radius.measure(Proposal(one, forwards), None)[0].ratio)
        return {}

    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = attach(model, optimizer, radius=CurvatureRadius(), policy=Watch(), probes=[second_opinion])
    loss().backward()
    optimizer.step()
    assert guard.last.ratio == pytest.approx(found[0], rel=1e-5)


def test_a_temperature_that_is_learnt_is_followed():
    torch.manual_seed(1)
    model, (x, y) = Net(lambda h, a: a / 10, 6), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    guard = attach(model, optimizer, radius=EXACT, policy=Watch())
    for factor in (2.0, 4.0, 8.0, 16.0, 32.0, 64.0):
        optimizer.zero_grad()
        truth = Truth(model, lambda out, factor=factor: [factor * out])
        F.cross_entropy(factor * model(x), y).backward()
        optimizer.step()
        assert guard.last.ratio == pytest.approx(truth.ratio(model, x), rel=1e-3)


def test_where_the_factor_cannot_be_told_logits_is_asked_for_once():
    torch.manual_seed(1)
    model = Net(lambda h, a: a, 6)
    soft = torch.rand(7, 6).softmax(-1)
    loss = lambda out, y: F.cross_entropy(out, soft)  # noqa: E731
    with pytest.warns(SafestepWarning, match="attach\\(..., logits=") as said:
        step(model, loss, read=lambda out: [out], lr=0.1, steps=5)
    assert len(said) == 1
    step(Net(lambda h, a: a, 6), loss, read=lambda out: [out], lr=0.1, logits=lambda out: out)  # named: nothing to ask


# -- what the loss is -------------------------------------------------------------------------------------------------


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
@pytest.mark.parametrize("radius", [EXACT, SoftmaxRadius(), CurvatureRadius()], ids=["exact", "tiered", "curvature"])
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


# -- which rows -------------------------------------------------------------------------------------------------------


@METHODS
def test_samples_outside_the_clip_of_ppo_count_on_request(radius):
    """They have no gradient, and are those that move farthest."""
    torch.manual_seed(1)
    model, (x, y) = nn.Linear(5, 4), batch(64)
    with torch.no_grad():
        old = model(x).log_softmax(-1).gather(1, y[:, None]).squeeze(1) - torch.linspace(-1, 1, 64)
    x[-1] *= 50  # outside the clip, and moves most

    def loss(out):
        quotient = (out.log_softmax(-1).gather(1, y[:, None]).squeeze(1) - old).exp()
        kept = torch.minimum(quotient, quotient.clamp(0.8, 1.2))
        return -kept[:-1].sum() / 64 - kept[-1].detach()

    found = {}
    for rows in ("trained", "all"):
        twin = nn.Linear(5, 4)
        twin.load_state_dict(model.state_dict())
        optimizer = torch.optim.SGD(twin.parameters(), lr=2.0)
        options = {"method": radius.method, "rows": rows}
        guard = attach(twin, optimizer, radius=SoftmaxRadius(**options), policy=Watch(), logits=lambda out: out)
        truth = Truth(twin)
        loss(twin(x)).backward()
        optimizer.step()
        found[rows] = guard.last.ratio
    assert found["all"] == pytest.approx(truth.ratio(twin, x), rel=1e-4 if radius is EXACT else 0.03)
    assert found["trained"] < found["all"]


@pytest.mark.parametrize("radius", [EXACT, PROBE, CurvatureRadius()], ids=["exact", "probe", "curvature"])
def test_an_input_that_numpy_refills_before_the_step_is_found_out(radius):
    torch.manual_seed(1)
    model, (x, y) = Net(lambda h, a: a, 4), batch()
    buffer = x.numpy().copy()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    attach(model, optimizer, radius=radius)
    F.cross_entropy(model(torch.from_numpy(buffer)), y).backward()
    buffer[:] = 7.0
    with pytest.raises(MeasurementError, match="overwritten"):
        optimizer.step()


def test_what_fails_in_a_hook_of_ours_is_the_steps_trouble():
    """Jagged nested tensors have no norm along a dimension: not the user's backward."""
    torch.manual_seed(1)
    model = nn.Linear(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    guard = attach(model, optimizer, policy=Watch())
    x = torch.nested.nested_tensor([torch.randn(2, 5), torch.randn(3, 5)], layout=torch.jagged)
    model(x).values().square().sum().backward()
    with pytest.warns(SafestepWarning):
        optimizer.step()
    assert guard.last.status is Status.UNMEASURED
    assert math.isnan(guard.last.ratio)


# -- one table of logits, read along both dimensions ------------------------------------------------------------------


class Contrastive(nn.Module):
    """Two towers; the similarities of all pairs, and the same transposed, or worked out once more."""

    def __init__(self, turn):
        super().__init__()
        self.one, self.two, self.turn = nn.Linear(5, 8), nn.Linear(5, 8), turn

    def forward(self, x):
        one, two = F.normalize(self.one(x), dim=-1), F.normalize(self.two(x + 0.3 * x.sin()), dim=-1)
        z = 10.0 * one @ two.T
        return {"image": z, "text": 10.0 * two @ one.T if self.turn is None else self.turn(z)}


TURNS = {
    "T": lambda z: z.T,
    "transpose": lambda z: z.transpose(-1, 0),
    "permute": lambda z: z.permute(1, 0),
    "copied": lambda z: z.t().contiguous(),
}


def contrastive(turn, seed, radius):
    torch.manual_seed(seed)
    labels = torch.arange(7)
    loss = lambda out, y: F.cross_entropy(out["image"], labels) + F.cross_entropy(out["text"], labels)  # noqa: E731
    return step(Contrastive(turn), loss, read=lambda out: [out["image"], out["text"]], radius=radius, lr=0.01)


@METHODS
@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("seed", range(3))
def test_both_sides_of_a_contrastive_loss_are_measured(turn, seed, radius):
    """The gradient at z holds what came through z.T: neither alone sums to zero there."""
    guard, truth = contrastive(TURNS[turn], seed, radius)
    assert guard.last.ratio == pytest.approx(truth, rel=0.02)
    assert {str(head) for head in guard.heads} == {"output.image (softmax)", "output.text (softmax)"}


LOSSES = {
    "few rows": lambda out: F.cross_entropy(out["image"][:3], torch.arange(3)) + F.cross_entropy(out["text"], LABELS),
    "weighted": lambda out: 3 * F.cross_entropy(out["image"], LABELS) + 0.1 * F.cross_entropy(out["text"], LABELS),
}
LABELS = torch.arange(7)


@pytest.mark.parametrize("loss", [*LOSSES, "one backward a side"])
def test_both_sides_are_measured_at_every_step(loss):
    """Also at steps that do not look at everything, and where a side trains few rows or has a backward of its own."""
    torch.manual_seed(0)
    model = Contrastive(TURNS["T"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = attach(model, optimizer, radius=EXACT, policy=Watch())
    rows = torch.arange(7) < 3 if loss == "few rows" else torch.ones(7, dtype=torch.bool)
    for seed in range(7):
        optimizer.zero_grad()
        x, _ = batch(seed=seed)
        sides = [Truth(model, lambda out: [out["image"]], rows), Truth(model, lambda out: [out["text"]])]
        out = model(x)
        if loss in LOSSES:
            LOSSES[loss](out).backward()
        else:
            F.cross_entropy(out["text"], LABELS).backward(retain_graph=True)
            F.cross_entropy(out["image"], LABELS).backward()
        optimizer.step()
        assert guard.last.ratio == pytest.approx(max(side.ratio(model, x) for side in sides), rel=1e-4)


@pytest.mark.parametrize("turn", TURNS)
def test_their_curvatures_add_up(turn):
    (turned, _), (apart, _) = (contrastive(how, 0, CurvatureRadius()) for how in (TURNS[turn], None))
    assert turned.last.ratio == pytest.approx(apart.last.ratio, rel=1e-5)


@METHODS
def test_a_side_that_the_loss_does_not_use_is_not_measured(radius):
    labels = torch.arange(7)
    torch.manual_seed(1)
    model = Contrastive(TURNS["T"])
    loss, read = lambda out, y: F.cross_entropy(out["text"], labels), lambda out: [out["text"]]
    guard, truth = step(model, loss, read=read, radius=radius)
    assert guard.last.ratio == pytest.approx(truth, rel=0.02)
    assert [str(head) for head in guard.heads] == ["output.text (softmax)"]


# -- what is not known is not called exact ----------------------------------------------------------------------------


def test_a_factor_that_cannot_be_told_is_not_called_exact():
    soft = torch.rand(7, 4).softmax(-1)
    torch.manual_seed(1)
    with pytest.warns(SafestepWarning, match="factor"):
        guard, _ = step(Net(lambda h, a: a, 4), lambda z, y: F.cross_entropy(z / 0.3, soft), read=lambda out: [out])
    assert guard.last.exact is False


def test_a_penalty_does_not_take_back_a_factor_that_was_found():
    """Its second derivatives bring a gradient to the logits that is no softmax's."""
    torch.manual_seed(1)
    model, (x, y) = Net(lambda h, a: a, 4), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = attach(model, optimizer, radius=EXACT, policy=Watch())
    for index in range(6):
        optimizer.zero_grad()
        truth = Truth(model, lambda out: [out / 0.1])
        z = model(x)
        loss = F.cross_entropy(z / 0.1, y)
        if index:
            loss = loss + 1e-3 * (z - z.mean(-1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        assert guard.last.ratio == pytest.approx(
            truth.ratio(model, x), rel=0.01
        )  # the factor is fitted, and forgotten it would be 10 times


def test_probabilities_beside_a_loss_are_not_called_exact():
    """Nothing tells that they are no logits, once backward never reaches them."""

    class Told(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(5, 4)

        def forward(self, x, gold):
            z = self.body(x)
            return F.cross_entropy(z, gold), z.softmax(-1)

    torch.manual_seed(1)
    model, (x, y) = Told(), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = attach(model, optimizer, radius=EXACT, policy=Watch())
    model(x, y)[0].backward()
    optimizer.step()
    assert guard.last.exact is False


def test_heads_in_objects_within_objects_are_found():
    @dataclass
    class Inner:
        logits: torch.Tensor

    @dataclass
    class Outer:
        logits: torch.Tensor
        aux: Inner

    torch.manual_seed(1)
    model = Net(lambda h, a, b: Outer(a, Inner(b)), 4, 4)
    loss = lambda out, y: F.cross_entropy(out.logits, y) + F.cross_entropy(out.aux.logits, y)  # noqa: E731
    guard, truth = step(model, loss, read=lambda out: [out.logits, out.aux.logits])
    assert guard.last.ratio == pytest.approx(truth, rel=1e-4)
