"""An expression as an objective: its values, its gradient, which ones are quadratics, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from safestep.descent import PLANE, Function, Quadratic
from safestep.errors import UnknownNameError
from safestep.experiments.runner.settings import SettingError
from safestep.simulation.expression import read_expression


def read(text):
    return read_expression(text, lambda d: (-1.0,) * d)


POINTS = torch.tensor([[0.5, -1.5, 2.0], [1.25, 0.75, 0.1]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("text", "by_hand"),
    [
        ("x1**4 + 2*x2^4", lambda a, b: a**4 + 2 * b**4),
        ("(1 - x1)**2 + 100*(x2 - x1**2)**2", lambda a, b: (1 - a) ** 2 + 100 * (b - a**2) ** 2),
        ("exp(-x1**2)*sin(pi*x2)", lambda a, b: torch.exp(-(a**2)) * torch.sin(math.pi * b)),
        ("abs(x1 - x2)/3 + sqrt(2)*x2", lambda a, b: (a - b).abs() / 3 + 2**0.5 * b),
        ("max(x1, x2, 0) + min(x1, 1)", lambda a, b: torch.maximum(a, b).clamp(min=0) + a.clamp(max=1)),
        ("e**x2 - x1/x2", lambda a, b: torch.exp(b) - a / b),
        ("log(x1**2)**2 + tanh(x2)", lambda a, b: torch.log(a**2) ** 2 + torch.tanh(b)),
        ("x1**2*x2 + 3", lambda a, b: a**2 * b + 3),
    ],
)
def test_values_and_gradients_are_those_by_hand(text, by_hand):
    objective = read(text)
    assert isinstance(objective, Function)
    x = POINTS[:, :2].clone().requires_grad_()
    value = by_hand(x[:, 0], x[:, 1])
    torch.testing.assert_close(objective.value(POINTS[:, :2]), value.detach())
    torch.testing.assert_close(objective.gradient(POINTS[:, :2]), torch.autograd.grad(value.sum(), x)[0])


coefficient = st.decimals(-9, 9, places=2)


@given(st.decimals("0.1", 5, places=1), st.decimals(6, 9, places=1), coefficient, coefficient, coefficient, coefficient)
def test_quadratics_are_found_wherever_their_minimum_is(a, b, mixed, c1, c2, least):
    objective = read(f"{a}*(x1 - ({c1}))**2 + ({mixed})*(x1 - ({c1}))*(x2 - ({c2})) + {b}*(x2 - ({c2}))^2 + ({least})")
    assume(mixed**2 != 4 * a * b)
    assert isinstance(objective, Quadratic)
    assert objective.minimum == (float(c1), float(c2))
    assert objective.least == float(least)
    by_hand = torch.tensor([[float(2 * a), float(mixed)], [float(mixed), float(2 * b)]], dtype=torch.float64)
    torch.testing.assert_close(objective.matrix, by_hand)


@pytest.mark.parametrize("text", ["x1**2 + x2", "x1 + x2", "x1**3", "x1**2*x2", "abs(x1)"])
def test_what_is_no_quadratic_with_a_place_without_slope_is_a_function(text):
    assert isinstance(read(text), Function)


@pytest.mark.parametrize("text", ["9**9**9*x1", "x1**(9**9)", "x1**1e9", "2**(10*1001)*x1"])
def test_powers_that_no_one_means_are_refused_at_once(text):
    with pytest.raises(SettingError, match="exponents up to 1000"):
        read(text)


def test_an_exponent_may_hold_a_variable():
    assert read("2**(x1**2)").value(torch.tensor([[2.0]])).item() == pytest.approx(16.0)


def test_the_plane_is_found():
    assert read_expression("x1**2 + 2*x2**2", lambda d: PLANE.start) == PLANE


def test_the_largest_variable_tells_their_number():
    assert read("x3**2").dimension == 3
    assert read("sin(x2)").dimension == 2
    assert read("0.5*x1").value(torch.tensor([[2.0]])).item() == 1.0


@pytest.mark.parametrize("text", ["y**2", "x0**2", "x1*x100", "sine(x1)", "X1"])
def test_an_unknown_name_is_told_with_what_is_known(text):
    with pytest.raises(UnknownNameError, match=r"in an expression.*There are: x1, x2, pi"):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "pi",
        "x1 +",
        "x1 - x1 + 2",
        "1/0 + x1",
        "x1 == 2",
        "x1*1j",
        "x1 if x2 else 3",
        "x1[0]",
        "(x1, x2)",
        "lambda: x1",
        "sin(x1, x2)",
        "sin(x=x1)",
        "x1(2)",
        "x1.real",
        "'x1'",
        "+".join(["x1"] * 20_000),
    ],
)
def test_what_is_no_finite_expression_is_told(text):
    with pytest.raises(SettingError, match="objective="):
        read(text)


@pytest.mark.parametrize(
    "text", ["__import__('os').mkdir('harmed')", "exp(open('harmed', 'w').write('')) + x1", "x1.__class__"]
)
def test_nothing_but_arithmetic_is_evaluated(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((SettingError, UnknownNameError)):
        read(text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["sqrt(-1)*x1", "log(-1) + x1**2", "asin(2)*x1"])
def test_what_is_not_real_is_told(text):
    with pytest.raises(SettingError, match="expected real numbers"):
        read(text)
