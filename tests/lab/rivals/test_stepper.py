"""Steppers: the order of a step, losses that are not finite, and a look at averages that leaves no trace."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.optim import SGD

from safestep.lab.rivals.registry import RIVALS
from safestep.lab.rivals.stepper import Stepper
from safestep.lab.tasks import digits_mlp


def test_what_runs_before_the_step_sees_the_gradients_and_changes_them():
    weight = nn.Parameter(torch.tensor(3.0))
    seen = []

    def halve() -> None:
        seen.append(weight.grad.item())
        weight.grad.mul_(0.5)

    stepper = Stepper(SGD([weight], lr=1.0), before=halve)
    assert stepper.step(lambda: weight**2) == 9.0
    assert stepper.step(lambda: weight**2) == 0.0
    assert seen == [6.0, 0.0]
    assert weight.item() == 0.0


def test_all_optimizers_step():
    one, two = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(1.0))
    stepper = Stepper(SGD([one], lr=1.0), SGD([two], lr=2.0))
    stepper.step(lambda: one + two)
    assert (one.item(), two.item()) == (0.0, -1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", RIVALS)
def test_a_loss_that_is_not_finite_leaves_the_weights_alone(name, bad):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    stepper = RIVALS[name].start(model, 10, 5)
    factor = 1.0

    def loss() -> torch.Tensor:
        return factor * model(torch.ones(4, 3)).square().mean()

    for _ in range(2):
        assert math.isfinite(stepper.step(loss))
    before = [p.detach().clone() for p in model.parameters()]
    factor = bad
    assert stepper.step(loss) == pytest.approx(bad, nan_ok=True)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("name", ["schedule-free", "schedule-free+", "schedule-free-polyak"])
def test_a_look_at_the_average_leaves_no_trace(name):
    torch.manual_seed(0)
    task = digits_mlp(0)
    stepper = RIVALS[name].start(task.model, 10, task.epoch)
    for inputs, labels in itertools.islice(task.batches(128, torch.Generator().manual_seed(0)), 10):
        stepper.step(lambda x=inputs, y=labels: task.loss(x, y))
    trained_at = [p.detach().clone() for p in task.model.parameters()]
    with stepper.judged():
        assert not torch.equal(task.model[0].weight, trained_at[0])
    assert all(torch.equal(p, old) for p, old in zip(task.model.parameters(), trained_at, strict=True))


def test_an_optimizer_that_goes_by_the_loss_learns_it():
    # MoMo's first step on wᵀw / 2 with a bound of 0: Polyak's, (f + ⟨d, w⟩ - γ) / Σ d² / D with d = 0.1 g, D = |g|
    weight = nn.Parameter(torch.tensor([0.001, -0.002]))
    stepper = RIVALS["momo-adam"].start(nn.ParameterList([weight]), 10, 5)
    stepper.step(lambda: weight.square().sum() / 2)
    rate = (0.1 * 5e-6 / 2) / (0.1**2 * 0.003)
    torch.testing.assert_close(weight.detach(), torch.tensor([0.001 - 0.1 * rate, -0.002 + 0.1 * rate]))
