"""Steps that never came to their end: an error half way, an optimizer of two that is missing, a log cut short."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from safestep import Cap, CurvatureRadius, JsonLines, SafestepWarning, SoftmaxRadius, Status, Watch, attach
from zoo import said
from zoo.asserts import assert_identical
from zoo.loop import Loop, network


def pair(lr=1000.0, **options):
    """A model with an optimizer for each of its two layers, guarded."""
    model = network()
    optimizers = [torch.optim.SGD(layer.parameters(), lr=lr) for layer in (model[0], model[2])]
    return model, optimizers, attach(model, optimizers, **options)


def backward(model, seed=0):
    model.zero_grad()
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, 4, generator=generator)
    cross_entropy(model(x), torch.randint(3, (8,), generator=generator)).backward()


def values(model):
    return [p.detach().clone() for p in model.parameters()]


def fail(*_):
    raise RuntimeError("boom")


# -- an optimizer of two is missing -----------------------------------------------------------------------------------


def test_a_checkpoint_between_two_optimizers_holds_the_judged_step():
    model, (first, _), guard = pair()
    backward(model)
    start = values(model)
    first.step()
    proposed = values(model)
    state = guard.state_dict()
    assert guard.last.status is Status.CAPPED
    assert state["step"] == 1
    moved = sum((a - b).square().sum() for a, b in zip(values(model), start, strict=True)).sqrt()
    assert moved < sum((a - b).square().sum() for a, b in zip(proposed, start, strict=True)).sqrt()


def test_a_late_record_holds_the_rates_of_its_step():
    model, (first, second), guard = pair(lr=0.5)
    backward(model)
    first.step()
    for optimizer in (first, second):
        optimizer.param_groups[0]["lr"] = 0.1
    model(torch.randn(2, 4))
    assert guard.last.lrs == (0.5, 0.5)


def test_parameters_that_somebody_wrote_to_are_not_taken_for_a_step():
    """A checkpoint is loaded where one of two optimizers has stepped: it must stay as it was loaded."""
    model, (first, second), guard = pair()
    saved = {name: value.clone() + 1 for name, value in model.state_dict().items()}
    backward(model)
    first.step()
    model.load_state_dict(saved)
    with pytest.warns(SafestepWarning, match="written to after some of several optimizers had stepped"):
        backward(model)
    assert_identical(dict(model.state_dict()), saved)
    assert guard.last is None
    first.step()
    second.step()
    assert (guard.last.step, guard.last.status) == (0, Status.CAPPED)


@pytest.mark.parametrize("policy", [Cap(1.0), Watch()], ids=str)
def test_where_the_second_optimizer_raised_the_first_ones_step_is_undone(policy):
    model, (first, second), guard = pair(policy=policy)
    backward(model)
    start = values(model)
    first.step()
    moved = values(model)
    handle = second.register_step_pre_hook(fail)
    with pytest.raises(RuntimeError, match="boom"):
        second.step()
    handle.remove()
    backward(model, seed=1)
    assert_identical(values(model), start if policy.writes else moved)
    first.step()
    second.step()
    assert [report.step for report in guard.history] == [0]


# -- an error half way ------------------------------------------------------------------------------------------------


def half_way(poisoned):
    model = network()
    optimizer = torch.optim.SGD([{"params": model[0].parameters()}, {"params": model[2].parameters()}], lr=0.1)
    guard = attach(model, optimizer)
    backward(model)
    if poisoned:
        model[0].weight.grad[0, 0] = math.nan
    del optimizer.param_groups[1]["lr"]
    with pytest.raises(KeyError):
        optimizer.step()
    optimizer.param_groups[1]["lr"] = 0.1
    return model, guard


def test_a_nan_that_an_error_left_behind_is_taken_back():
    model, guard = half_way(poisoned=True)
    assert not all(torch.isfinite(p).all() for p in model.parameters())
    backward(model, seed=1)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), network().parameters(), strict=True))
    assert guard.last is None


def test_what_an_error_left_finite_stays():
    model, guard = half_way(poisoned=False)
    moved = values(model)
    backward(model, seed=1)
    assert_identical(values(model), moved)
    assert guard.last is None


@pytest.mark.parametrize("most", [256, 1])
def test_a_forward_whose_backward_raised_is_no_part_of_the_next_step(most):
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    guard = attach(model, optimizer, policy=Watch(), radius=SoftmaxRadius(method="exact"), max_forwards=most)
    x, y = torch.randn(8, 4), torch.randint(3, (8,))
    cross_entropy(model(x), y).backward()
    large = (1e3 * x).requires_grad_()
    large.register_hook(fail)
    with pytest.raises(RuntimeError, match="boom"):
        cross_entropy(model(large), y).backward()
    optimizer.zero_grad()
    cross_entropy(model(x), y).backward()
    start = model.weight.detach().clone(), model.bias.detach().clone()
    optimizer.step()
    a = x @ (model.weight - start[0]).T + model.bias - start[1]
    assert guard.last.ratio == pytest.approx((a.amax(1) - a.amin(1)).max().item() / math.pi, rel=1e-4)
    assert (guard.last.exact, guard.last.message) == (True, "")


# -- the range of float16 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [SoftmaxRadius(method="exact"), CurvatureRadius()], ids=str)
@pytest.mark.parametrize("power", [-5, 0, 6])
def test_under_float16_autocast_a_step_of_any_length_is_measured(radius, power):
    """J p of a step of length 1e6 is no float16, and of one of 1e-5 little is left; that of their direction is."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=10.0**power)
    guard = attach(model, optimizer, radius=radius, policy=Watch())
    x, y = torch.randn(8, 4), torch.randint(3, (8,))
    with torch.autocast("cpu", dtype=torch.float16):
        loss = cross_entropy(model(x).float(), y)
    loss.backward()
    optimizer.step()
    assert guard.last.ratio == pytest.approx(_ratio_in_float32(radius, power, x, y), rel=0.02)


def _ratio_in_float32(radius, power, x, y):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=10.0**power)
    guard = attach(model, optimizer, radius=radius, policy=Watch())
    cross_entropy(model(x), y).backward()
    optimizer.step()
    return guard.last.ratio


# -- a log that was cut short -----------------------------------------------------------------------------------------


def test_a_log_that_ends_in_the_midst_of_a_line_goes_on_in_a_new_one(tmp_path):
    path = tmp_path / "log.jsonl"
    loop = Loop(log=path).steps(2)
    path.write_bytes(path.read_bytes()[:-9])
    loop.guard.detach()
    with said("holds the records of an earlier run"):
        Loop(log=path).steps(2).guard.detach()
    lines = path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in (lines[0], *lines[2:])] == [0, 0, 1]


def test_a_whole_log_and_an_empty_one_get_no_empty_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.touch()
    Loop(log=path).steps(1).guard.detach()
    with said("holds the records of an earlier run"):
        Loop(log=path).steps(1).guard.detach()
    JsonLines(path).close()
    assert len(path.read_text().splitlines()) == 2
