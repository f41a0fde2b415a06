"""Rivals: every one learns the digits, repeats bit for bit, and needs no rate of ours."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import safestep._torch.extras
from safestep.errors import MissingExtraError
from safestep.lab.rivals.registry import RIVALS
from safestep.lab.tasks import digits_mlp, digits_transformer

STEPS = 60


def run(name: str, steps: int = STEPS) -> tuple[float, list[float]]:
    """Return the accuracy after a run on the digits, and its losses."""
    torch.manual_seed(0)
    # with its defaults D-Adaptation never learns the perceptron; with bias correction it does
    task = (digits_transformer if name == "d-adaptation" else digits_mlp)(0)
    stepper = RIVALS[name].start(task.model, steps, task.epoch)
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in stepper.optimizers]
    batches = task.batches(task.batch_size, torch.Generator().manual_seed(0))
    losses = []
    for step, (inputs, labels) in zip(range(steps), batches, strict=False):
        if RIVALS[name].schedule == "cosine":
            factor = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)).item())
            for optimizer, firsts in zip(stepper.optimizers, rates, strict=True):
                for group, first in zip(optimizer.param_groups, firsts, strict=True):
                    group["lr"] = factor * first
        losses.append(stepper.step(lambda x=inputs, y=labels: task.loss(x, y)))
    with stepper.judged():
        return task.test()[1], losses


first = cache(run)


@pytest.mark.parametrize("name", RIVALS)
def test_each_learns_the_digits(name):
    accuracy, losses = first(name)
    assert len(losses) == STEPS
    assert losses[-1] < losses[0]
    assert accuracy > 0.5  # guessing: 0.1


@pytest.mark.parametrize("name", RIVALS)
def test_each_repeats_bit_for_bit(name):
    assert run(name) == first(name)


def test_names_are_those_of_the_rivals():
    assert all(rival.name == name for name, rival in RIVALS.items())


@pytest.mark.parametrize(("name", "batches"), [("sls", 500), ("sls-epoch", 2)])
def test_only_one_of_the_line_searches_is_told_the_epoch(name, batches):
    weight = torch.nn.Parameter(torch.tensor(1.0))
    stepper = RIVALS[name].start(torch.nn.ParameterList([weight]), 10, 2)
    stepper.step(lambda: 0.01 * weight**2)  # so flat that nothing is too long
    assert stepper.rate == pytest.approx(2 ** (1 / batches))


def test_a_missing_package_names_the_extra(monkeypatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(safestep._torch.extras.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"needs prodigyopt.*extra 'peers'"):
        RIVALS["prodigy"].start(torch.nn.Linear(2, 2), 10, 5)
