"""Where the loss is taken, in what precision, and in what parcel the logits come: no cell is silent and wrong."""

from __future__ import annotations

import contextlib
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from safestep import Cap, CurvatureRadius, MeasurementError, Readout, SoftmaxRadius, Status, Watch, attach
from zoo.truth import Truth

BF16 = lambda: torch.autocast("cpu", torch.bfloat16)  # noqa: E731
PARCELS = {
    "tensor": (lambda loss, z: z, lambda out: out),
    "logits": (lambda loss, z: OrderedDict(loss=loss, logits=z), lambda out: out["logits"]),
    "tuple": (lambda loss, z: (loss, z), lambda out: out[1]),
    "dict": (lambda loss, z: {"loss": loss, "scores": z}, lambda out: out["scores"]),
}
WAYS = ["plain", "autocast inside", "autocast outside", "cast out", "compiled", "checkpointed", "detached out"]


class Model(nn.Module):
    """A classifier that takes its loss inside, or leaves that to the loop."""

    def __init__(self, parcel, way, *, inside):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(5, 8), nn.Tanh()), nn.Linear(8, 4)
        self.parcel, self.way, self.inside = PARCELS[parcel][0], way, inside

    def forward(self, x, labels=None):
        low = self.way in {"autocast inside", "cast out"} and x.dtype != torch.float64
        with BF16() if low else contextlib.nullcontext():
            hidden = checkpoint(self.body, x, use_reentrant=False) if self.way == "checkpointed" else self.body(x)
            z = self.head(hidden)
            loss = F.cross_entropy(z, labels) if labels is not None else torch.zeros(())
        if self.way == "cast out":
            z = z.float()
        return self.parcel(loss, z.detach() if self.way == "detached out" else z)


def cells():
    for parcel in PARCELS:
        for way in WAYS:
            for inside in (False, True):
                if (inside and parcel == "tensor") or (way == "detached out" and not inside):
                    continue
                yield pytest.param(parcel, way, inside, id=f"{parcel}-{way}-{'inside' if inside else 'outside'}")


def run(parcel, way, inside, **options):
    """Take a step on some ignored rows; return the guard and the true r of what it did."""
    torch.manual_seed(0)
    model = Model(parcel, way, inside=inside)
    optimizer = torch.optim.SGD(model.parameters(), lr=3.0)
    guard = attach(model, optimizer, **{"policy": Watch(), "radius": SoftmaxRadius(method="exact"), **options})
    called = torch.compile(model, backend="aot_eager") if way == "compiled" else model
    x, y = torch.randn(9, 5), torch.randint(4, (9,))
    y[3:5] = -100
    x[3] *= 100  # would be the largest by far
    read = PARCELS[parcel][1]
    truth = Truth(model, lambda out: [read(out)], rows=y != -100)
    with BF16() if way == "autocast outside" else contextlib.nullcontext():
        out = called(x, labels=y) if inside else called(x)
        loss = (out["loss"] if isinstance(out, dict) else out[0]) if inside else F.cross_entropy(read(out), y)
    loss.backward()
    optimizer.step()
    # a detached output has no derivative, and moves all the same
    return guard, (truth.by_difference if way == "detached out" else truth.ratio)(model, x)


@pytest.mark.filterwarnings(
    "ignore:forward-mode differentiation", "ignore:the training pass cannot", "ignore:no replay"
)
@pytest.mark.parametrize("method", ["exact", "probe"])
@pytest.mark.parametrize(("parcel", "way", "inside"), [*cells()])
def test_r_is_that_of_all_trained_rows(parcel, way, inside, method):
    guard, truth = run(parcel, way, inside, radius=SoftmaxRadius(method=method))
    low = way in {"autocast inside", "autocast outside", "cast out"}
    rough = 0.15 if low else 0.03 if method == "probe" or way in {"compiled", "detached out"} else 1e-4
    assert guard.last.status is Status.WATCHED, guard.last.message
    assert guard.last.ratio == pytest.approx(truth, rel=rough)
    if low:
        assert not guard.last.exact


@pytest.mark.parametrize("way", ["plain", "cast out"])
@pytest.mark.parametrize("parcel", ["logits", "tuple", "dict"])
def test_a_loss_inside_says_no_false_alarm(parcel, way):
    run(parcel, way, inside=True, radius=SoftmaxRadius())  # warnings are errors here


@pytest.mark.filterwarnings("ignore:the training pass cannot")
@pytest.mark.parametrize("way", ["plain", "cast out", "checkpointed"])
def test_curvature_sees_the_gradient_inside(way):
    inside, _ = run("logits", way, inside=True, radius=CurvatureRadius())
    outside, _ = run("logits", way, inside=False, radius=CurvatureRadius())
    assert inside.last.ratio == pytest.approx(outside.last.ratio, rel=0.02 if way == "cast out" else 1e-6)


def test_curvature_refuses_a_compiled_loss():
    with pytest.raises(MeasurementError, match="was not seen"):
        run("logits", "compiled", inside=True, radius=CurvatureRadius(), policy=Cap(1.0))


# -- a training step called as the forward ----------------------------------------------------------------------------


class Lit(nn.Module):
    """As a trainer calls it across processes: the forward is the training step, which calls the model itself."""

    def __init__(self, *, views=1):
        super().__init__()
        self.net, self.views, self.as_step = nn.Linear(5, 4), views, True

    def forward(self, x, y=None):
        if not self.as_step:
            return self.net(x)
        self.as_step = False
        try:
            return sum(F.cross_entropy(self(x * (1 + 10 * view)), y) for view in range(self.views))
        finally:
            self.as_step = True


@pytest.mark.parametrize("views", [1, 2])
def test_of_a_training_step_the_nested_calls_count(views):
    torch.manual_seed(0)
    model = Lit(views=views)
    optimizer = torch.optim.SGD(model.net.parameters(), lr=3.0)

    guard = attach(model, optimizer, radius=SoftmaxRadius(method="probe"), policy=Watch())
    x, y = torch.randn(6, 5), torch.randint(4, (6,))
    truth = Truth(model.net)
    loss = model(x, y)
    model.as_step = False  # by the time of the step the model's forward is its own again
    loss.backward()
    optimizer.step()
    assert guard.last.ratio == pytest.approx(truth.ratio(model.net, x * (11 if views == 2 else 1)), rel=0.03)


# -- no logits at all -------------------------------------------------------------------------------------------------


class Fused(nn.Module):
    """Returns a loss and nothing else."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Embedding(11, 6), nn.Linear(6, 11)

    def features(self, ids):
        return torch.tanh(self.body(ids))

    def forward(self, ids, labels):
        return F.cross_entropy(self.head(self.features(ids)).flatten(0, -2), labels.flatten())


FORWARDS = {
    "logits": lambda model, ids, labels: model.head(model.features(ids)),
    "features": lambda model, ids, labels: (model.features(ids), model.head),
}


@pytest.mark.parametrize("method", ["exact", "probe", "tiered"])
@pytest.mark.parametrize("forward", FORWARDS)
def test_a_way_to_logits_for_measuring_only(forward, method):
    torch.manual_seed(0)
    model, ids, labels = Fused(), torch.randint(11, (3, 7)), torch.randint(11, (3, 7))
    labels[1] = -100
    ids[1] = 0
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    guard = attach(model, optimizer, forward=FORWARDS[forward], radius=SoftmaxRadius(method=method), policy=Cap(1.0))
    for _ in range(3):
        optimizer.zero_grad()
        start = {name: p.detach().clone() for name, p in model.named_parameters()}
        model(ids, labels).backward()
        optimizer.step()
        moved = {name: p.detach() - start[name] for name, p in model.named_parameters()}
        call = lambda q: torch.func.functional_call(_Logits(model), {f"model.{k}": v for k, v in q.items()}, (ids,))  # noqa: E731
        _, tangent = torch.func.jvp(call, (start,), (moved,))
        spread = (tangent.amax(-1) - tangent.amin(-1))[labels >= 0].max().item()
        assert spread / torch.pi == pytest.approx(guard.last.applied_ratio, rel=0.03)
        assert guard.last.applied_ratio <= 1.0 + 1e-6
        assert not guard.last.exact


class _Logits(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model.head(self.model.features(ids))


def test_never_more_logits_at_a_time_than_stated():
    torch.manual_seed(0)
    model, sizes = Fused(), []

    def head(rows):
        sizes.append(rows.shape[0] * 11)
        return model.head(rows)

    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    read = Readout(lambda model, ids, labels: (model.features(ids), head), chunk=44)
    attach(model, optimizer, forward=read, policy=Watch(), radius=SoftmaxRadius(method="probe"))
    model(torch.randint(11, (3, 7)), torch.randint(11, (3, 7))).backward()
    optimizer.step()
    assert sizes
    assert max(sizes) <= 44


@pytest.mark.parametrize("forward", [lambda model, *args: None, lambda model, *args: (torch.zeros(3, 2), 5)])
def test_a_way_to_no_logits_is_an_error(forward):
    model = Fused()
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    attach(model, optimizer, forward=forward, radius=SoftmaxRadius(method="exact"))
    model(torch.randint(11, (3, 7)), torch.randint(11, (3, 7))).backward()
    with pytest.raises(MeasurementError, match="forward= returned"):
        optimizer.step()
