"""The loss of a curvature radius that was not named: found, remembered, resumed, changed, refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from radius.dense_curvature import LOSSES, dense_ratio, inputs, labels, network, stepped
from safestep import Cap, CurvatureRadius, SafestepWarning, SoftmaxRadius, Tightest, Watch, attach
from safestep.errors import LossMismatchError

NAMES = {
    "cross-entropy": CurvatureRadius("cross_entropy"),
    "cross-entropy-sum": CurvatureRadius("cross_entropy", reduction="sum"),
    "ignored-labels": CurvatureRadius("cross_entropy"),
    "smoothed-labels": CurvatureRadius("cross_entropy"),
    "soft-labels": CurvatureRadius("cross_entropy"),
    "scaled": CurvatureRadius("cross_entropy", scale=3.0),
    "bce": CurvatureRadius("bce"),
}


@pytest.mark.filterwarnings("ignore:whether the loss multiplies")  # soft labels do not tell
@pytest.mark.parametrize("name", NAMES)
def test_a_loss_that_is_found_is_the_one_that_is_named_to_the_last_digit(name):
    _, loss, kind = LOSSES[name]
    reports = []
    for radius in (NAMES[name], CurvatureRadius()):
        model, x, y = network(), inputs(), labels(kind)
        reports.append(stepped(model, radius, lambda _: loss(model(x), y).backward())[0])  # noqa: B023
    assert reports[0].ratio == reports[1].ratio
    assert reports[0].exact is reports[1].exact


FLAGS = F.one_hot(torch.tensor([0, 1, 2, 3, 0, 1]), 4).double()
POSITIVE = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
MASK = torch.tensor([[1.0, 0, 1, 1], [1, 1, 1, 0], [0, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]]).double()
SAMPLES = torch.tensor([0.2, 3.0, 1.0, 0.5, 2.0, 0.1, 1.5, 0.7, 2.5, 1.2, 0.4, 0.9]).double()
MANY = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3])
WEIGHTED = {
    "classes": (lambda z: F.cross_entropy(z, MANY, weight=POSITIVE), "weights of the classes"),
    "classes-sum": (lambda z: F.cross_entropy(z, MANY, weight=POSITIVE, reduction="sum"), "weights of the classes"),
    "samples": (
        lambda z: (SAMPLES * F.cross_entropy(z, MANY, reduction="none")).mean(),
        "weights of the samples",
    ),
    "positive": (
        lambda z: F.binary_cross_entropy_with_logits(z, FLAGS.repeat(2, 1), pos_weight=POSITIVE[2]),
        "weights of the classes",
    ),
    "masked": (
        lambda z: (
            (F.binary_cross_entropy_with_logits(z, FLAGS.repeat(2, 1), reduction="none") * MASK.repeat(2, 1)).sum() / 9
        ),
        "weights of the samples",
    ),
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_are_read_off_the_gradient(name):
    """For a model linear in its parameters the quadratic model is that of the dense Hessian."""
    loss, words = WEIGHTED[name]
    torch.manual_seed(0)
    model, x = nn.Linear(5, 4).double(), torch.randn(12, 5).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    guard = attach(model, optimizer, radius=CurvatureRadius(), policy=Watch())
    loss(model(x)).backward()
    optimizer.step()
    p = {name: q.detach() - start[name] for name, q in model.named_parameters()}
    assert guard.last.ratio == pytest.approx(dense_ratio(model, start, p, x, loss), rel=1e-10)
    assert guard.last.exact
    assert words in repr(guard)


def test_squared_errors_of_few_labels_are_found():
    torch.manual_seed(0)
    x, y = torch.randn(30, 5).double(), F.one_hot(torch.arange(30) % 4, 4).double()
    ratios = []
    for radius in (CurvatureRadius("mse"), CurvatureRadius()):
        torch.manual_seed(1)
        model = nn.Linear(5, 4).double()
        ratios.append(stepped(model, radius, lambda _: F.mse_loss(model(x), y).backward())[0].ratio)  # noqa: B023
    assert ratios[0] == ratios[1]


def means(model, x, y, rows, scale):
    def act(_):
        for part in rows:
            (scale * F.cross_entropy(model(x[part]), y[part])).backward()

    return act


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_means_of_micro_batches_that_are_added_or_averaged(scale):
    x, y, halves = inputs(), labels("classes"), (slice(0, 3), slice(3, 6))
    ratios = []
    for radius in (CurvatureRadius(), CurvatureRadius("cross_entropy", scale=2 * scale)):
        model = network()
        ratios.append(stepped(model, radius, means(model, x, y, halves, scale))[0].ratio)
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-12)


def test_a_gradient_scaler_is_no_scale():
    x, y, ratios = inputs(), labels("classes"), []
    for scaled in (False, True):
        model = network().float()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=scaled)
        guard = attach(model, optimizer, radius=CurvatureRadius(), policy=Watch())
        scaler.scale(F.cross_entropy(model(x.float()), y, weight=POSITIVE.float())).backward()
        scaler.step(optimizer)
        ratios.append(guard.last.ratio)
    assert ratios[1] == pytest.approx(ratios[0], rel=1e-5)


def run(model, optimizer, x, y, losses):
    for loss in losses:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()


def test_it_is_said_and_resumed():
    x, y = inputs(), labels("classes")
    losses = [lambda z, y: 2 * F.cross_entropy(z, y, reduction="sum", label_smoothing=0.1)] * 6
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = attach(model, optimizer, radius=CurvatureRadius(), policy=Cap(0.2))
    assert "found" not in repr(guard)
    run(model, optimizer, x, y, losses[:3])
    assert "loss found: cross_entropy, sum times 2, label smoothing 0.1>" in repr(guard)
    other = copy.deepcopy(model)
    again = torch.optim.SGD(other.parameters(), lr=0.01)
    resumed = attach(other, again, radius=CurvatureRadius(), policy=Cap(0.2))
    resumed.load_state_dict(guard.state_dict())
    assert "loss found: cross_entropy, sum times 2" in repr(resumed)
    run(model, optimizer, x, y, losses[3:])
    run(other, again, x, y, losses[3:])
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def test_a_state_that_knows_no_loss_finds_one():
    model, x, y = network(), inputs(), labels("classes")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = attach(model, optimizer, radius=CurvatureRadius(), policy=Watch())
    run(model, optimizer, x, y, [F.cross_entropy] * 3)
    del guard._controller.radius_state["loss"]  # as older states are
    run(model, optimizer, x, y, [F.cross_entropy])
    assert "loss found: cross_entropy, mean" in repr(guard)


def test_the_tightest_says_it_too():
    model, x, y = network(), inputs(), labels("classes")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    both = Tightest({CurvatureRadius(): 0.2, SoftmaxRadius(): 1.0})
    guard = attach(model, optimizer, radius=both, policy=Watch())
    run(model, optimizer, x, y, [F.cross_entropy])
    assert repr(guard).endswith("loss found: cross_entropy, mean>")


def test_two_heads_have_a_loss_each():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(5, 4).double(), nn.Linear(5, 3).double()

        def forward(self, x):
            return {"one": self.one(x), "other": self.other(x)}

    torch.manual_seed(0)
    model, x, y = Two(), inputs(), labels("classes")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = attach(model, optimizer, radius=CurvatureRadius(), policy=Watch())
    out = model(x)
    (F.cross_entropy(out["one"], y) + 0.25 * F.cross_entropy(out["other"], y % 3, reduction="sum")).backward()
    optimizer.step()
    assert "output.one: cross_entropy, mean; output.other: cross_entropy" in repr(guard)
    start = torch.cat([p.flatten() for p in model.parameters()]).detach()
    optimizer.zero_grad()

    def loss():
        out = model(x)
        return F.cross_entropy(out["one"], y) + 0.25 * F.cross_entropy(out["other"], y % 3, reduction="sum")

    loss().backward()
    g = torch.cat([p.grad.flatten() for p in model.parameters()])
    parameters = tuple(p.detach().clone() for p in model.parameters())

    def at(*values):
        out = torch.func.functional_call(model, dict(zip(dict(model.named_parameters()), values, strict=True)), (x,))
        return F.cross_entropy(out["one"], y) + 0.25 * F.cross_entropy(out["other"], y % 3, reduction="sum")

    rows = torch.autograd.functional.hessian(at, parameters)
    hessian = torch.cat(
        [torch.cat([h.reshape(q.numel(), -1) for h in row], 1) for row, q in zip(rows, parameters, strict=True)]
    )
    optimizer.step()
    p = torch.cat([q.flatten() for q in model.parameters()]).detach() - start
    assert guard.last.ratio == pytest.approx((p @ hessian @ p / (-2 * g @ p)).item(), rel=1e-9)


def test_what_cannot_be_told_is_refused_and_nothing_moves():
    model, x, y = network(), inputs(), labels("reals")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attach(model, optimizer, radius=CurvatureRadius(), policy=Cap(0.2))
    before = [p.detach().clone() for p in model.parameters()]
    F.mse_loss(model(x), y).backward()
    why = r"(?s)cannot be told .* at the output: saw .*\nexpected: .*\nto do: .*'mse'.* HessianRadius"
    with pytest.raises(LossMismatchError, match=why):
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_a_loss_that_changes_is_said_once():
    torch.manual_seed(0)
    model, x, y = nn.Linear(5, 4).double(), torch.randn(32, 5).double(), torch.arange(32) % 4
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    attach(model, optimizer, radius=CurvatureRadius(), policy=Watch())
    advantages = torch.randn(32).double()
    policy = lambda z, y: (advantages * F.cross_entropy(z, y, reduction="none")).mean()  # noqa: E731
    run(model, optimizer, x, y, [F.cross_entropy])
    with pytest.warns(
        SafestepWarning, match=r"not any more that of the loss that was found .*: saw .* either sign"
    ) as said:
        run(model, optimizer, x, y, [policy] * 8)
    assert len(said) == 1


def test_a_scale_that_changes_is_followed():
    model, x, y = network(), inputs(), labels("classes")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = attach(model, optimizer, radius=CurvatureRadius(), policy=Watch())
    run(model, optimizer, x, y, [F.cross_entropy, lambda z, y: F.cross_entropy(z, y) / 4])
    assert repr(guard).endswith("loss found: cross_entropy, mean times 0.25>")


def test_what_is_given_is_held_against_what_is_seen():
    model, x, y = network(), inputs(), labels("classes")
    with pytest.warns(SafestepWarning, match="6 times"):
        stepped(
            model,
            CurvatureRadius(reduction="mean"),
            lambda _: F.cross_entropy(model(x), y, reduction="sum").backward(),
        )


@pytest.mark.parametrize("reduced", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("name", ["smoothed", "weighted", "binary", "squares"])
def test_what_was_found_stays_through_a_run_to_small_losses(name, reduced):
    """At every look the model is surer of its labels, until gradients are next to nothing."""
    weight = torch.linspace(0.5, 2.0, 4)
    loss = {
        "smoothed": lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1),
        "weighted": lambda z, y: F.cross_entropy(z, y, weight=weight),
        "binary": lambda z, y: F.binary_cross_entropy_with_logits(z, F.one_hot(y, 4).float()),
        "squares": lambda z, y: F.mse_loss(z, F.one_hot(y, 4).float()),
    }[name]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 4))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    guard = attach(model, optimizer, radius=CurvatureRadius(), policy=Watch())
    y = torch.randint(0, 4, (256,))
    x, said = torch.randn(256, 8) + 2 * F.one_hot(y, 8), set()
    for step in range(140):
        rows = torch.arange(64) + 64 * (step % 4)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            value = loss(model(x[rows]), y[rows])
        value.backward()
        optimizer.step()
        said.add(repr(guard).rpartition("found: ")[2])
    assert len(said) == 1


def test_a_small_penalty_on_the_logits_is_no_other_loss():
    model, x, y = network(), inputs(), labels("classes")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = attach(model, optimizer, radius=CurvatureRadius(), policy=Watch())
    loss = lambda z, y: F.cross_entropy(z, y) + 1e-4 * z.logsumexp(-1).square().mean()  # noqa: E731
    run(model, optimizer, x, y, [loss] * 3)
    assert "loss found: cross_entropy, mean>" in repr(guard)
