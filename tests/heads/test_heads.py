"""Every head that the loss goes through counts, in whatever parcel the model returns it."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from heads.one_step import EXACT, METHODS, Net, batch, step
from safestep import (
    Cap,
    CurvatureRadius,
    LossMismatchError,
    SafestepWarning,
    SoftmaxRadius,
    Status,
    Tiers,
    Watch,
    attach,
)
from zoo.truth import Truth

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

    guard = attach(model, optimizer, radius=CurvatureRadius(), policy=Watch(), diagnostics=[second_opinion])
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
