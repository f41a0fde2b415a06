"""Contract 1 for every kind of state on a module: what a forward changes, changes once, however often it is run."""

from __future__ import annotations

import copy
import itertools
import random
from collections import Counter, deque
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from safestep import (
    Cap,
    CurvatureRadius,
    KLRadius,
    MeasurementError,
    SafestepWarning,
    SoftmaxRadius,
    Status,
    Watch,
    attach,
)
from zoo.truth import Truth


class Stateful(nn.Module):
    """A classifier whose forward changes something of one kind, and reads it."""

    def __init__(self, kind):
        super().__init__()
        self.body, self.kind = nn.Linear(5, 4), kind
        self.centre = torch.zeros(4)
        self.losses = []
        self.table = {"centre": torch.zeros(4), "calls": 0}
        self.array = np.zeros(4, dtype=np.float32)
        self.recent = deque(maxlen=3)
        self.words = Counter()
        self.rng, self.dice, self.bits = torch.Generator().manual_seed(3), random.Random(3), np.random.default_rng(3)
        self.helper = SimpleNamespace(scale=1.0, inner=SimpleNamespace(calls=0))
        self.last = torch.zeros(4)
        self.parts = [SimpleNamespace(total=torch.zeros(4))]

    def forward(self, x):
        z = self.body(x)
        return getattr(self, self.kind)(z)

    def a_tensor(self, z):
        out = z - self.centre.to(z)
        self.centre.mul_(0.9).add_(z.detach().mean(0), alpha=0.1)
        return out

    def a_rebound_tensor(self, z):
        before, self.last = self.last, 0.9 * self.last + 0.1 * z.detach().mean(0).to(self.last)
        return z - before.to(z)

    def a_list(self, z):
        self.losses.append(z.detach().mean())
        return z * (1 + 0.1 * len(self.losses))

    def a_dict(self, z):
        self.table["calls"] += 1
        out = z / self.table["calls"] - self.table["centre"].to(z)
        self.table["centre"].add_(z.detach().mean(0))
        return out

    def an_array(self, z):
        out = z - torch.from_numpy(self.array.copy()).to(z)
        self.array += z.detach().mean(0).float().numpy()
        return out

    def a_deque(self, z):
        out = z * (1 + sum(self.recent))
        self.recent.append(z.detach().mean().item())
        return out

    def a_counter_that_moves_no_logit(self, z):
        self.words["seen"] += len(z)
        return z

    def generators(self, z):
        noise = torch.rand(4, generator=self.rng).to(z)
        return z * (self.dice.random() + self.bits.random() + noise)

    def an_object(self, z):
        self.helper.inner.calls += 1
        self.helper.scale = self.helper.scale * 0.9
        return z * self.helper.scale / self.helper.inner.calls

    def a_tensor_deep_inside(self, z):
        out = z - self.parts[0].total.to(z)
        self.parts[0].total.add_(z.detach().mean(0))
        return out

    def an_unregistered_module(self, z):
        if "hidden" not in vars(self):
            vars(self)["hidden"] = SimpleNamespace(norm=nn.BatchNorm1d(4, affine=False))
        self.hidden.norm(z.detach())
        return z - 0.1 * self.hidden.norm.running_mean.clone()


KINDS = [name for name in vars(Stateful) if not name.startswith("_") and name != "forward"]
RADII = {
    "tiered": SoftmaxRadius(),
    "probe": SoftmaxRadius(method="probe"),
    "exact": SoftmaxRadius(method="exact"),
    "curvature": CurvatureRadius(),
    "kl": KLRadius(),
}


def told(model):
    """Return all that the forward can change, as plain data."""
    hidden = vars(model).get("hidden")
    return {
        "centre": model.centre.tolist(),
        "losses": [value.item() for value in model.losses],
        "table": (model.table["calls"], model.table["centre"].tolist()),
        "array": model.array.tolist(),
        "recent": list(model.recent),
        "words": dict(model.words),
        "rng": model.rng.get_state().tolist(),
        "dice": model.dice.getstate(),
        "bits": str(model.bits.bit_generator.state),
        "helper": (model.helper.scale, model.helper.inner.calls),
        "last": model.last.tolist(),
        "total": model.parts[0].total.tolist(),
        "hidden": None if hidden is None else hidden.norm.running_mean.tolist(),
    }


def trained(kind, steps=12, **options):
    torch.manual_seed(1)
    model = Stateful(kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = attach(model, optimizer, **options) if options else None
    for index in range(steps):
        generator = torch.Generator().manual_seed(index)
        x, y = torch.randn(6, 5, generator=generator), torch.randint(4, (6,), generator=generator)
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, guard


@pytest.mark.filterwarnings("ignore:the training pass cannot be differentiated")
@pytest.mark.parametrize("policy", [Watch(), Cap(1e9)], ids=["watch", "cap"])
@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("kind", KINDS)
def test_training_is_bit_for_bit(kind, radius, policy):
    plain, _ = trained(kind)
    model, guard = trained(kind, radius=RADII[radius], policy=policy)
    assert told(model) == told(plain)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    assert len(guard.history) == 12
    assert not {Status.UNMEASURED, Status.UNDONE} & {report.status for report in guard.history}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "an_unregistered_module"])
def test_r_is_that_of_the_state_that_training_started_from(kind):
    """Measured by running the model again, not by the tape: the state must be put where the forward found it."""
    model, _ = trained(kind, steps=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    guard = attach(model, optimizer, radius=SoftmaxRadius(method="probe"), policy=Watch())
    for index in range(3):
        generator = torch.Generator().manual_seed(100 + index)
        x, y = torch.randn(6, 5, generator=generator), torch.randint(4, (6,), generator=generator)
        truth = Truth(model)
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        assert guard.last.ratio == pytest.approx(truth.by_difference(model, x), rel=0.02)


def test_a_hook_of_the_users_that_collects_fires_once_in_effect():
    torch.manual_seed(0)
    model, collected = nn.Linear(5, 4), []
    model.register_forward_hook(lambda module, args, output: collected.append(output.detach().mean()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    attach(model, optimizer, radius=SoftmaxRadius(method="probe"), policy=Watch())
    for _ in range(3):
        cross_entropy(model(torch.randn(6, 5)), torch.randint(4, (6,))).backward()
        optimizer.step()
    assert len(collected) == 3


class Streaming(nn.Module):
    """Takes a number from an iterator in every forward: nothing can put it back."""

    def __init__(self, stream):
        super().__init__()
        self.body, self.stream = nn.Linear(5, 4), stream

    def forward(self, x):
        return self.body(x) * next(self.stream)


STREAMS = {
    "generator": lambda: (1.0 + 0.1 * index for index in itertools.count()),
    "count": lambda: itertools.count(1),
    "iterator": lambda: iter([1.0 + 0.1 * index for index in range(100)]),
}


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("method", ["tiered", "probe", "exact"])
def test_what_nothing_puts_back_is_refused_by_name_and_not_touched(stream, method):
    torch.manual_seed(0)
    model, plain = Streaming(STREAMS[stream]()), Streaming(STREAMS[stream]())
    plain.load_state_dict(model.state_dict())
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    attach(model, optimizer, radius=SoftmaxRadius(method=method))
    cross_entropy(model(torch.randn(6, 5)), torch.randint(4, (6,))).backward()
    with pytest.raises(MeasurementError, match="stream"):
        optimizer.step()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    next(plain.stream)
    assert next(model.stream) == next(plain.stream)


def test_under_watch_it_trains_on_unmeasured():
    torch.manual_seed(0)
    model = Streaming(STREAMS["generator"]())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    guard = attach(model, optimizer, policy=Watch())
    cross_entropy(model(torch.randn(6, 5)), torch.randint(4, (6,))).backward()
    with pytest.warns(SafestepWarning, match="stream"):
        optimizer.step()
    assert guard.last.status is Status.UNMEASURED


# -- parameters that a forward writes to ------------------------------------------------------------------------------


class MomentumEncoder(nn.Module):
    """As MoCo has it: the frozen twin follows the trained encoder inside the forward."""

    def __init__(self, write):
        super().__init__()
        self.query, self.key, self.write = nn.Linear(4, 6), nn.Linear(4, 6).requires_grad_(False), write

    def forward(self, x):
        with torch.no_grad():
            for ours, theirs in zip(self.key.parameters(), self.query.parameters(), strict=True):
                self.write(ours, theirs)
        return self.query(x) @ self.key(x).T


def _by_data(ours, theirs):
    ours.data = ours.data * 0.9 + theirs.data * 0.1


WRITES = {
    "in place": lambda ours, theirs: ours.mul_(0.9).add_(theirs, alpha=0.1),
    "past the counter": lambda ours, theirs: ours.data.mul_(0.9).add_(theirs.data, alpha=0.1),
    "exchanged": _by_data,
}


@pytest.mark.parametrize("method", ["tiered", "probe", "exact"])
@pytest.mark.parametrize("write", WRITES)
def test_frozen_parameters_that_a_forward_writes_to_are_named_and_left_to_it(write, method):
    def trained(*, guarded):
        torch.manual_seed(0)
        model = MomentumEncoder(WRITES[write])
        optimizer = torch.optim.SGD(model.query.parameters(), lr=0.1)
        guard = attach(model, optimizer, policy=Watch(), radius=SoftmaxRadius(method=method)) if guarded else None
        for _ in range(4):
            optimizer.zero_grad()
            cross_entropy(model(torch.randn(5, 4)), torch.arange(5)).backward()
            optimizer.step()
        return guard, [p.detach().clone() for p in model.parameters()]

    _, plain = trained(guarded=False)
    with pytest.warns(SafestepWarning, match=r"moved key\.bias, key\.weight on"):
        guard, watched = trained(guarded=True)
    assert all(map(torch.equal, plain, watched))
    assert {report.status for report in guard.history} == {Status.UNMEASURED}
