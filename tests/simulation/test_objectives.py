"""Objectives by name, by curvatures, and from a file of the user's."""

from __future__ import annotations

import pytest
import torch

from safestep.descent import PLANE, VALLEY, Beale, DescentError, Function, Quadratic, Rosenbrock, Saddle
from safestep.errors import UnknownNameError
from safestep.experiments.runner.settings import SettingError
from safestep.simulation.objectives import NAMED, read_objective

MINE = """
import torch

def of_rows(x):
    return (x**2).sum(-1)

def of_coordinates(x1, x2, x3):
    return torch.cosh(x1) + x2**2 + x3**2

def of_one(x1):
    return x1**2

def with_option(x, scale=2.0):
    return scale * of_rows(x)

def late(x):
    if x.abs().max() > 5.5:
        raise ValueError("too far")
    return of_rows(x)

def nothing():
    return 1

number = 3
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def test_named_objectives():
    assert [read_objective(name) for name in NAMED] == [PLANE, VALLEY, Rosenbrock(), Beale(), Saddle()]
    assert read_objective(" Saddle ", "1,2") == Saddle(start=(1.0, 2.0))
    assert read_objective("rosenbrock", "1,2,3").dimension == 3


def test_quadratics():
    assert read_objective("quadratic:2,4") == PLANE
    assert read_objective("quadratic:1,2,3") == Quadratic((1.0, 2.0, 3.0), start=(-1.0, -1.0, -1.0))
    assert read_objective("quadratic:3,1;1,2").hessian == ((3.0, 1.0), (1.0, 2.0))
    with pytest.raises(DescentError, match="expected a symmetric matrix"):
        read_objective("quadratic:3,1;2,2")


@pytest.mark.parametrize(
    ("name", "start"), [("of_rows", (-5.0, -2.0)), ("of_coordinates", (-1.0, -1.0, -1.0)), ("of_one", (-1.0,))]
)
def test_a_function_of_the_users(mine, name, start):
    objective = read_objective(f"{mine}:{name}")
    assert isinstance(objective, Function)
    assert objective.start == start
    assert objective.value(torch.zeros(4, len(start))).shape == (4,)
    assert objective.gradient(torch.zeros(4, len(start))).abs().max() == 0


def test_a_file_may_hold_dataclasses(tmp_path):
    path = tmp_path / "torch.py"  # under a name of its own it hides no other module
    path.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Scale:\n    a: float = 3.0\n"
        "def f(x1):\n    return Scale().a * x1**2\n"
    )
    assert read_objective(f"{path}:f").value(torch.tensor([[2.0]])).item() == 12.0
    assert torch.is_tensor(torch.ones(1))


def test_what_has_a_default_is_no_variable(mine):
    objective = read_objective(f"{mine}:with_option", "1,2,3")
    assert objective.value(torch.ones(1, 3)).item() == 6.0


def test_an_error_of_the_users_function_says_where(mine):
    objective = read_objective(f"{mine}:late")
    assert objective.value(torch.ones(2, 2)).tolist() == [2.0, 2.0]
    line = MINE.splitlines().index('        raise ValueError("too far")') + 1
    with pytest.raises(DescentError, match=rf"mine.py:late failed in line {line}: ValueError: too"):
        objective.value(torch.full((1, 2), 6.0))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("of_row", "no function 'of_row' in .*Did you mean of_rows?"),
        ("nothing", "nothing has no argument: expected a function of x"),
        ("number", "number is 3: expected a function"),
    ],
)
def test_what_is_no_function_of_points_is_told(mine, name, message):
    with pytest.raises((SettingError, UnknownNameError), match=message):
        read_objective(f"{mine}:{name}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_that_name", "in line 1: ModuleNotFoundError"),
        ("x = 1\nraise SystemExit(3)", "in line 2: SystemExit"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_file_that_cannot_be_run_is_told(tmp_path, text, message):
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(SettingError, match=rf"broken.py cannot be run.*{message}"):
        read_objective(f"{tmp_path / 'broken.py'}:f")


@pytest.mark.parametrize(
    ("text", "start", "message"),
    [
        ("rosenbrok", "", "no objective 'rosenbrok'. Did you mean rosenbrock?"),
        ("plane:3", "", "no objective 'plane:3'. Did you mean plane?"),
        ("plane", "1", "start=1: 1 numbers, expected 2"),
        ("quadratic:1", "1,2", "start=1,2: 2 numbers, expected 1"),
        ("x1**2", "", r"no objective 'x1\*\*2'.* There are: plane, .*; or FILE.py:FUNCTION"),
        ("rosenbrock", "1", "start=1: 1 numbers, expected 2"),
        ("quadratic:", "", "quadratic=: expected finite numbers"),
        ("nowhere.py:f", "", "nowhere.py is no Python file"),
    ],
)
def test_bad_input_is_told(text, start, message):
    with pytest.raises((SettingError, UnknownNameError), match=message):
        read_objective(text, start)
