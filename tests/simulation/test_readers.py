"""Optimizers, schedules, noise and policies as they are written on a command line."""

from __future__ import annotations

import pytest
import torch

from safestep.descent import DescentError, Gaussian
from safestep.errors import UnknownNameError
from safestep.experiments.runner.settings import SettingError
from safestep.policy import Cap, Pin, Throttle, Watch
from safestep.schedules import (
    Constant,
    Cosine,
    Exponential,
    Inverse,
    PiecewiseConstant,
    Polynomial,
    Staircase,
    WarmUp,
)
from safestep.simulation.noises import read_noise
from safestep.simulation.optimizers import optimizers, read_optimizer
from safestep.simulation.policies import read_policy
from safestep.simulation.schedules import read_schedule


def test_every_optimizer_of_torch_is_known():
    exported = {name for name in torch.optim.__all__ if name[0].isupper()} - {"Optimizer"}
    assert {kind.__name__ for kind in optimizers().values()} >= exported


@pytest.mark.parametrize("name", ["SGD", "adamw", "RMSprop", "nadam"])
def test_an_optimizer_is_made_at_its_rate(name):
    optimizer = read_optimizer(name, 0.25)([torch.zeros(2, 2, requires_grad=True)])
    assert type(optimizer).__name__.lower() == name.lower()
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_options_reach_the_optimizer():
    group = read_optimizer("sgd", 0.1, ["momentum=0.9", "nesterov=true"])([torch.zeros(1)]).param_groups[0]
    assert (group["momentum"], group["nesterov"]) == (0.9, True)


@pytest.mark.parametrize(
    ("name", "rate", "options", "message"),
    [
        ("adm", 0.1, [], "no optimizer 'adm'. Did you mean adam?"),
        ("sgd", 0.1, ["momentun=1"], "SGD has no option 'momentun'. Did you mean momentum?"),
        ("sgd", 0.1, ["params=1"], "SGD has no option 'params'"),
        ("sgd", 0.1, ["momentum"], "option=momentum: expected NAME=VALUE"),
        ("sgd", 0.1, ["lr=1"], "expected the learning rate as --lr 1"),
        ("sgd", 0.1, ["momentum=-1"], "SGD with lr=0.1, momentum=-1: ValueError: Invalid momentum"),
        ("sgd", 0.1, ["momentum=high"], "SGD with lr=0.1, momentum=high: TypeError"),
        ("adam", 0.1, ["betas=0.9"], "Adam with lr=0.1, betas=0.9"),
        ("sgd", -1.0, [], "SGD with lr=-1: ValueError: Invalid learning rate"),
        ("sgd", float("nan"), [], "lr=nan: expected a finite number"),
    ],
)
def test_an_optimizer_that_cannot_be_made_is_told(name, rate, options, message):
    with pytest.raises((SettingError, UnknownNameError), match=message):
        read_optimizer(name, rate, options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("constant", Constant()),
        ("Inverse:0.1", Inverse(0.1)),
        ("polynomial:0.1", Polynomial(0.1)),
        ("polynomial:0.1, 0.75", Polynomial(0.1, 0.75)),
        ("exponential:1e-1", Exponential(0.1)),
        ("staircase:20,0.1", Staircase(20, 0.1)),
        ("piecewise:30=0.1,60=0.01", PiecewiseConstant((30, 60), (1.0, 0.1, 0.01))),
        ("cosine:50", Cosine(50)),
        ("warmup:5+cosine:45", WarmUp(5).then(Cosine(45))),
        ("warmup:5 + cosine:45 + constant:0.1", WarmUp(5).then(Cosine(45)).then(Constant(0.1))),
        ("warmup:5*inverse:1e+1", WarmUp(5) * Inverse(10.0)),
        ("warmup:5*inverse:0.1", WarmUp(5) * Inverse(0.1)),
    ],
)
def test_schedules(text, expected):
    assert read_schedule(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exponental:1", "no schedule 'exponental'. Did you mean exponential?"),
        ("", "no schedule ''"),
        ("exponential", "Expected exponential:LAMBDA"),
        ("exponential:1,2", "too few numbers, or too many. Expected exponential:LAMBDA"),
        ("exponential:-1", "decay = -1: expected a finite number above 0"),
        ("staircase:2.5,0.1", "every = 2.5: expected a whole number"),
        ("inverse:x", "beta = 'x'"),
        ("piecewise:30", "expected a step and its new factor"),
        ("piecewise", "expected a step and its new factor"),
        ("piecewise:60=0.1,30=0.01", "expected boundaries that rise"),
        ("constant+cosine:5", "nothing can follow them; expected warmup, cosine or piecewise before a"),
        ("warmup:5+", r"steps = '5\+': expected a whole number"),
    ],
)
def test_a_schedule_that_cannot_be_read_is_told(text, message):
    with pytest.raises((SettingError, UnknownNameError), match=message):
        read_schedule(text)


def test_noise():
    assert read_noise("1", 1) == Gaussian()
    assert read_noise("1,3", 2) == Gaussian((1.0, 3.0), batch=2)
    assert read_noise("2,1;1,2", 1) == Gaussian(covariance=((2.0, 1.0), (1.0, 2.0)))
    assert read_noise("None", 1) is None
    with pytest.raises(SettingError, match="batch=4 without noise"):
        read_noise("none", 4)
    with pytest.raises(DescentError, match="expected a standard deviation of at least 0"):
        read_noise("-1", 1)
    with pytest.raises(SettingError, match="noise=loud"):
        read_noise("loud", 1)


def test_policies():
    assert [read_policy(text) for text in ("cap", "Cap:0.5", "pin:2", "throttle:1.2", "watch")] == [
        Cap(),
        Cap(0.5),
        Pin(2.0),
        Throttle(chi=1.2),
        Watch(),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("throttel", "no policy 'throttel'. Did you mean throttle?"),
        ("cap:1,2", "expected cap:TARGET"),
        ("cap:x", "cap=x: expected finite numbers"),
        ("cap:-1", "policy=cap:-1"),
        ("throttle:3", "expected a margin in"),
        ("watch:1", "expected watch, which has no number"),
    ],
)
def test_a_policy_that_cannot_be_read_is_told(text, message):
    with pytest.raises((SettingError, UnknownNameError), match=message):
        read_policy(text)
