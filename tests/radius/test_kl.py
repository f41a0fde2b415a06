"""The KL radius against dense derivatives in float64 and the divergences that come out."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from radius.dense_curvature import inputs, labels, network, parameters, stepped
from safestep import Cap, CurvatureRadius, KLRadius, MeasurementError, Pin, Status, Tightest, Watch, attach
from zoo import examples


def divergence(q, z):
    """Mean KL of predictions."""
    q, p = q.log_softmax(-1), z.log_softmax(-1)
    return (q.exp() * (q - p)).sum(-1).mean()


def along(model, start, p, x):
    """z and J p at the start, by forward differentiation in float64."""
    run = lambda values: torch.func.functional_call(model, values, (x,))  # noqa: E731
    return torch.func.jvp(run, (start,), (p,))


def learn(model, x, y):
    return lambda _: F.cross_entropy(model(x), y).backward()


def test_r_is_the_predicted_divergence_in_units_of_the_limit():
    model, x = network(), inputs()
    report, start, p = stepped(model, KLRadius(0.03), learn(model, x, labels("classes")))
    z, a = along(model, start, p, x)
    weights = z.softmax(-1)
    variance = (weights * a.square()).sum(-1) - (weights * a).sum(-1).square()
    assert report.ratio == pytest.approx(math.sqrt(0.5 * variance.mean().item() / 0.03), rel=1e-10)
    assert report.exact


@pytest.mark.parametrize("policy", [Cap(1.0), Pin(1.0)], ids=str)
def test_the_divergence_that_comes_out_is_the_limit(policy):
    model, x = network(), inputs()
    z = model(x).detach()
    report, *_ = stepped(model, KLRadius(1e-4), learn(model, x, labels("classes")), policy=policy, lr=3.0)
    assert report.status in {Status.CAPPED, Status.PINNED}
    # the third order: a spread of some 0.05 nats
    assert divergence(z, model(x)).item() == pytest.approx(1e-4, rel=0.05)


def test_two_classes_in_closed_form():
    """p = P (1 - P) (a_1 - a_0)^2 / 2, with a the step itself."""
    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.3], [-0.2]], dtype=torch.float64))
    x, y = torch.ones(4, 1, dtype=torch.float64), torch.zeros(4, dtype=torch.long)
    report, _, p = stepped(model, KLRadius(0.01), learn(model, x, y))
    likely, gap = 1 / (1 + math.exp(-0.5)), (p["weight"][0] - p["weight"][1]).item()
    assert report.ratio == pytest.approx(math.sqrt(likely * (1 - likely) * gap**2 / 2 / 0.01), rel=1e-12)


def test_rows_without_a_gradient_count():
    model, other, x, y = network(), network(), inputs(), labels("ignored")
    report, start, p = stepped(model, KLRadius(), learn(model, x, y))
    z, a = along(model, start, p, x)
    every = (z.softmax(-1) * (a - (z.softmax(-1) * a).sum(-1, keepdim=True)).square()).sum(-1)
    assert report.ratio == pytest.approx(math.sqrt(every.mean().item() / 2 / 0.01), rel=1e-10)
    assert every[y >= 0].mean().item() != pytest.approx(every.mean().item(), rel=0.01)
    assert parameters(other).keys() == start.keys()


@pytest.mark.parametrize("flat", [False, True])
def test_sigmoids(flat):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 1), *[nn.Flatten(0)] * flat).double() if flat else network()
    x = inputs()
    y = torch.tensor([0, 1, 1, 0, 1, 0]).double() if flat else labels("flags")
    act = lambda _: F.binary_cross_entropy_with_logits(model(x), y).backward()  # noqa: E731
    report, start, p = stepped(model, KLRadius(head="sigmoid"), act)
    z, a = along(model, start, p, x)
    likely = z.sigmoid()
    bend = (likely * (1 - likely) * a.square()).reshape(6, -1).sum(-1).mean().item()
    assert report.ratio == pytest.approx(math.sqrt(bend / 2 / 0.01), rel=1e-10)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other = nn.Linear(5, 4), nn.Linear(5, 3)
        self.double()

    def forward(self, x):
        return {"one": self.one(x), "other": self.other(x)}


def test_several_heads_add_up():
    x, y = inputs(), labels("classes")
    squares = []
    for heads in (("one", "other"), ("one",), ("other",)):
        model = TwoHeads()

        def act(_, model=model, heads=heads):
            out = model(x)
            sum(F.cross_entropy(out[head], y % out[head].shape[-1]) for head in heads).backward()

        squares.append(stepped(model, KLRadius(), act)[0].ratio ** 2)
    assert squares[0] == pytest.approx(squares[1] + squares[2], rel=1e-10)


def test_micro_batches_are_one_batch():
    """Of different sizes too: the mean is over their samples."""
    x, y = inputs(), labels("classes")
    whole, parts = network(), network()

    def act(_):
        for rows in (slice(0, 2), slice(2, 6)):
            (F.cross_entropy(parts(x[rows]), y[rows], reduction="sum") / 6).backward()

    ratios = [
        stepped(model, KLRadius(reference=network(1)), one)[0].ratio
        for model, one in ((whole, learn(whole, x, y)), (parts, act))
    ]
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-12)


def test_beside_another_radius_it_is_the_same():
    """They share one derivative."""
    x, y = inputs(), labels("classes")
    radii = KLRadius(1e-3, reference=network(1)), CurvatureRadius()
    alone = [stepped(model := network(), radius, learn(model, x, y))[0].ratio for radius in radii]
    for targets in ((1.0, 1e3), (1e3, 1.0)):
        model = network()
        both = Tightest(dict(zip(radii, targets, strict=True)))
        report, *_ = stepped(model, both, learn(model, x, y))
        assert report.ratio == max(ratio / target for ratio, target in zip(alone, targets, strict=True))


def test_an_empty_batch_is_nothing_to_measure_on():
    model = network()
    act = lambda _: (F.cross_entropy(model(inputs()[:0]), labels("classes")[:0], reduction="sum")).backward()  # noqa: E731
    with pytest.raises(MeasurementError, match="no samples"):
        stepped(model, KLRadius(), act, policy=Cap(1.0), weight_decay=0.1)


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


def ratio_along(c, **options):
    model, x = network(), inputs()
    optimizer = Along(model.parameters(), c)
    guard = attach(model, optimizer, radius=KLRadius(**options), policy=Watch())
    F.cross_entropy(model(x), labels("classes")).backward()
    optimizer.step()
    return guard.last.ratio


@given(power=st.floats(-6, 6))
@examples(20)
def test_r_grows_with_the_length_of_the_step(power):
    """Contract 4: r(c p) = |c| r(p); from a reference for c > 0."""
    c = 10.0**power
    for options in ({}, {"reference": nudged(0.02), "max_kl": 0.1}):
        # a displacement is read off parameters of size 1 with 16 digits
        assert ratio_along(c, **options) == pytest.approx(c * ratio_along(1.0, **options), rel=1e-8)
    assert ratio_along(-c) == pytest.approx(c * ratio_along(1.0), rel=1e-8)


# -- a reference older than the step ----------------------------------------------------------------------------------


def nudged(size):
    """The network at other parameters."""
    model = network()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for q in model.parameters():
            q.add_(size * torch.randn(q.shape, generator=generator).double())
    return model


def test_the_divergence_from_a_reference_comes_out_at_the_limit():
    model, x = network(), inputs()
    old = nudged(0.02)
    used = divergence(old(x), model(x)).item()
    limit = used + 1e-4
    report, *_ = stepped(
        model, KLRadius(limit, reference=old), learn(model, x, labels("classes")), policy=Cap(1.0), lr=30.0
    )
    assert report.status is Status.CAPPED
    assert report.method.endswith("/reference")
    assert divergence(old(x), model(x)).item() - used == pytest.approx(1e-4, rel=0.05)


def test_a_reference_that_is_the_start_changes_nothing():
    ratios = []
    for reference in (None, network(), lambda x: network()(x) + 3.0):
        model, x = network(), inputs()
        ratios.append(stepped(model, KLRadius(reference=reference), learn(model, x, labels("classes")))[0].ratio)
    assert ratios[1:] == pytest.approx([ratios[0]] * 2, rel=1e-7)


def test_stored_logits_of_the_minibatch_do():
    model, x, y, old = network(), inputs(), labels("classes"), nudged(0.02)
    stored, rows = old(x).detach(), torch.tensor([4, 0, 2])
    report, *_ = stepped(model, KLRadius(reference=lambda *_: stored[rows]), learn(model, x[rows], y[rows]))
    copied = network()
    again, *_ = stepped(copied, KLRadius(reference=old), learn(copied, x[rows], y[rows]))
    assert report.ratio == pytest.approx(again.ratio, rel=1e-12)


def beyond(model, x, old, sign):
    """A step along the divergence from the reference, which is large already."""
    return lambda _: (sign * divergence(old(x).detach(), model(x))).backward()


SOFT = pytest.mark.filterwarnings("ignore:whether the loss multiplies")  # soft labels do not tell


@SOFT
def test_beyond_the_limit_a_step_away_is_held():
    model, x, old = network(), inputs(), nudged(0.2)
    before = parameters(model)
    radius = KLRadius(1e-3, reference=old)
    report, *_ = stepped(model, radius, beyond(model, x, old, -1), policy=Cap(1.0), lr=0.1)
    assert report.status is Status.HELD
    assert "farther away" in report.message
    assert all(torch.equal(before[name], q) for name, q in parameters(model).items())


@SOFT
def test_beyond_the_limit_a_step_back_stands():
    model, x, old = network(), inputs(), nudged(0.2)
    used = divergence(old(x), model(x)).item()
    radius = KLRadius(1e-3, reference=old)
    report, *_ = stepped(model, radius, beyond(model, x, old, 1), policy=Cap(1.0), lr=0.1)
    assert report.status is Status.INSIDE
    assert divergence(old(x), model(x)).item() < used


def test_what_a_reference_may_return_is_said():
    model, x, y = network(), inputs(), labels("classes")
    for reference, said in (
        (lambda x: torch.zeros(3, 4), r"shape \(3, 4\) .* shape \(6, 4\)"),
        (lambda x: {"logits": 0}, "dict without logits at the output"),
    ):
        act = learn(model, x, y)
        with pytest.raises(MeasurementError, match=said):
            stepped(model, KLRadius(reference=reference), act, policy=Cap(1.0))


def test_a_class_that_only_the_model_masks_is_said():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network()

        def forward(self, x):
            return F.pad(self.body(x)[:, :3], (0, 1), value=-math.inf)

    model, x = Masked(), inputs()
    act = learn(model, x, torch.tensor([0, 1, 2, 0, 1, 2]))
    with pytest.raises(MeasurementError, match="infinite"):
        stepped(model, KLRadius(reference=network()), act, policy=Cap(1.0))
    assert math.isfinite(stepped(model, KLRadius(reference=copy.deepcopy(model)), act)[0].ratio)


def test_the_reference_leaves_no_trace():
    """Contract 1: a frozen copy with dropout draws nothing from the generators of the run, and hears no guard."""

    def run(policy):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.Dropout(0.5), nn.Linear(7, 4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        guard = None
        if policy:
            guard = attach(model, optimizer, radius=KLRadius(reference=copy.deepcopy(model)), policy=policy)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs().float()), labels("classes")).backward()
            optimizer.step()
        return parameters(model), guard

    plain, _ = run(None)
    watched, guard = run(Watch())
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    assert guard.last.ratio > 0.0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_kl": 0.0}, ValueError),
        ({"max_kl": math.inf}, ValueError),
        ({"head": "tanh"}, ValueError),
        ({"reference": torch.zeros(2, 2)}, TypeError),
    ],
)
def test_options_are_checked(options, error):
    with pytest.raises(error, match=next(iter(options))):
        KLRadius(**options)
