"""Optimizers, schedules, noise and policies as they are written on a command line."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safestep.descent import DescentError, Gaussian
from safestep.errors import UnknownNameError
from safestep.experiments.runner.settings import SettingError
from safestep.policy import Cap, Pin, Throttle, Watch
from safestep.schedules import Constant, Cosine, Exponential, Inverse, Polynomial, Staircase, WarmUp
from safestep.simulation.options import (
    numbers,
    read_noise,
    read_optimizer,
    read_policy,
    read_schedule,
    rows,
    value,
)

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(finite, min_size=1))
def test_numbers_that_are_written_are_read(values):
    assert numbers(",".join(map(repr, values)), "start") == tuple(values)


@pytest.mark.parametrize("text", ["", "1,", "a", "1;2", "nan", "1,inf"])
def test_what_is_no_finite_number_is_told(text):
    with pytest.raises(SettingError, match=f"start={text}: expected finite numbers"):
        numbers(text, "start")


def test_rows_have_one_length():
    assert rows("3,1;1,2", "noise") == ((3.0, 1.0), (1.0, 2.0))
    with pytest.raises(SettingError, match="noise=1;1,2: expected rows of one length"):
        rows("1;1,2", "noise")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", 3), ("3.0", 3.0), ("1e-3", 1e-3), ("True", True), ("NONE", None), ("0.9,0.99", (0.9, 0.99)), ("max", "max")],
)
def test_a_value_has_the_type_that_is_written(text, expected):
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


def test_every_optimizer_of_torch_is_known():
    exported = {name.lower() for name in torch.optim.__all__ if name[0].isupper()} - {"optimizer"}
    with pytest.raises(UnknownNameError) as told:
        read_optimizer("none of them", 0.1)
    assert set(str(told.value).partition("There are: ")[2].split(", ")) >= exported


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
        ("sgd", 0.1, ["lr=1"], "the learning rate as --lr"),
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
        ("cosine:50", Cosine(50)),
        ("warmup:5", WarmUp(5)),
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
        ("exponential:1,2", "takes 2 positional arguments but 3 were given. Expected exponential:LAMBDA"),
        ("exponential:-1", "decay = -1: expected a finite number above 0"),
        ("staircase:2.5,0.1", "every = 2.5: expected a whole number"),
        ("inverse:x", "beta = 'x'"),
        ("warmup:5+cosine:45", r"steps = '5\+cosine:45': expected a whole number"),
        ("nowhere.py:f", "nowhere.py is no Python file"),
    ],
)
def test_a_schedule_that_cannot_be_read_is_told(text, message):
    with pytest.raises((SettingError, UnknownNameError), match=message):
        read_schedule(text)


def test_a_schedule_of_the_users_own(tmp_path):
    path = tmp_path / "rates.py"
    path.write_text(
        "from safestep.schedules import Cosine, WarmUp\n"
        "warm = WarmUp(5).then(Cosine(45))\n"
        "def drop(t):\n    return 1.0 if t < 30 else 0.1\n"
    )
    warm, drop = (read_schedule(f"{path}:{name}") for name in ("warm", "drop"))
    assert [warm(t) for t in range(60)] == [WarmUp(5).then(Cosine(45))(t) for t in range(60)]
    assert (drop(29), drop(30)) == (1.0, 0.1)


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
        ("cap:1,2", "Expected cap:TARGET"),
        ("cap:x", "policy=cap:x: "),
        ("cap:-1", "policy=cap:-1"),
        ("throttle:3", "expected a margin in"),
        ("watch:1", "expected watch, which has no number"),
    ],
)
def test_a_policy_that_cannot_be_read_is_told(text, message):
    with pytest.raises((SettingError, UnknownNameError), match=message):
        read_policy(text)
