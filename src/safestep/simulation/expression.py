"""An expression in x1, x2, ... as an objective: a quadratic where it is one, so that the exact law is known."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any

from torch import Tensor

from safestep._torch.extras import need
from safestep.descent import Function, Objective, Quadratic
from safestep.descent.objective import Point
from safestep.errors import UnknownNameError, first_line
from safestep.experiments.runner.names import nearest
from safestep.experiments.runner.settings import SettingError

_FUNCTIONS: Mapping[str, str] = {
    **{name: name for name in ("sqrt", "exp", "log", "sin", "cos", "tan", "asin", "acos", "atan")},
    **{name: name for name in ("sinh", "cosh", "tanh", "sign")},
    "abs": "Abs",
}
"""What may be called, and what sympy calls it."""
_CONSTANTS: Mapping[str, str] = {"pi": "pi", "e": "E"}
_OF_SEVERAL = ("min", "max")
_CALLED = (*_FUNCTIONS, *_OF_SEVERAL)
KNOWN = f"x1, x2, ..., {', '.join((*_CONSTANTS, *_CALLED))}"
"""The names of an expression."""
_LARGEST_EXPONENT = 1000
_VARIABLE = re.compile(r"x[1-9]\d?")
_ALLOWED = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.Call,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.Pow,
    ast.UAdd,
    ast.USub,
)


def read_expression(text: str, start_of: Callable[[int], Point]) -> Objective:
    """Return the objective that an expression tells.

    Args:
        text: an expression in x1, x2, ... with + - * / **, or ^ for a power.
        start_of: from the number of variables, the largest that is named, to where a descent begins.

    Returns:
        A `Quadratic` where the expression is one whose gradient is 0 somewhere, otherwise a `Function`.

    Raises:
        UnknownNameError: for a name that is none of an expression.
        SettingError: for what is no expression, or has no variable.

    Example:
        >>> read_expression("x1**2 + 2*x2**2", lambda d: (-1.0,) * d)
        Quadratic(hessian=(2.0, 4.0), start=(-1.0, -1.0), minimum=(0.0, 0.0), least=0.0)
        >>> import torch
        >>> read_expression("cos(x1)", lambda d: (0.0,)).gradient(torch.tensor([[0.5]]))
        tensor([[-0.4794]])
    """
    sympy = need("sympy", "experiments")
    written, tree = _parsed(text)
    used = sorted({int(node.id[1:]) for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id[0] == "x"})
    if not used:
        raise SettingError(f"objective={text}: expected an expression in x1, x2, ...")
    variables = [sympy.Symbol(f"x{i}", real=True) for i in range(1, used[-1] + 1)]
    names = {str(x): x for x in variables}
    names |= {name: getattr(sympy, told) for name, told in {**_FUNCTIONS, **_CONSTANTS}.items()}
    names |= {name: partial(_extreme, sympy, sign) for name, sign in zip(_OF_SEVERAL, (-1, 1), strict=True)}
    try:
        found = sympy.sympify(sympy.parse_expr(written, local_dict=names))
    except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise SettingError(f"objective={text}: {first_line(error)}") from None
    if not found.free_symbols or found.has(sympy.zoo, sympy.nan, sympy.oo, -sympy.oo):
        raise SettingError(f"objective={text} is {found}: expected a finite function of x1, x2, ...")
    if sympy.N(found).has(sympy.I):
        raise SettingError(f"objective={text} is {found}: expected real numbers, and I is the root of -1")
    start = start_of(len(variables))
    return _quadratic(sympy, found, variables, start) or Function(_torch(sympy, found, variables), start)


def _parsed(text: str) -> tuple[str, ast.AST]:
    """Return an expression in Python's way of writing, seen to hold numbers, known names and arithmetic alone.

    sympy evaluates what it is given as Python, so that nothing else may pass.
    """
    written = text.strip().replace("^", "**")
    try:
        tree = ast.parse(written, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise SettingError(f"objective={text}: expected an expression such as x1**2 + 2*x2**2") from None
    known = ["x1", "x2", *_CONSTANTS, *_CALLED]
    for name in (node.id for node in ast.walk(tree) if isinstance(node, ast.Name)):
        if not (_VARIABLE.fullmatch(name) or name in known):
            raise UnknownNameError(f"objective={text}: no {name!r} in an expression{nearest(name, known)}")
    for node in ast.walk(tree):
        number = not isinstance(node, ast.Constant) or type(node.value) in {int, float}
        called = not isinstance(node, ast.Call) or (
            isinstance(node.func, ast.Name) and node.func.id in _CALLED and not node.keywords
        )
        if not (isinstance(node, _ALLOWED) and number and called):
            raise SettingError(f"objective={text}: expected numbers, + - * / **, and of names {KNOWN}")
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and _huge(node.right):
            # a whole number with millions of digits keeps sympy busy for ever
            raise SettingError(f"objective={text}: expected exponents up to {_LARGEST_EXPONENT}, written as one number")
    return written, tree


def _huge(exponent: ast.expr) -> bool:
    """Return whether an exponent without variables is too large, or a power itself."""
    parts = list(ast.walk(exponent))
    if any(isinstance(part, ast.Name) for part in parts):
        return False
    numbers = [part.value for part in parts if isinstance(part, ast.Constant)]
    large = any(isinstance(value, (int, float)) and abs(value) > _LARGEST_EXPONENT for value in numbers)
    return large or any(isinstance(part, ast.Pow) for part in parts)


def _extreme(sympy: Any, sign: int, *values: Any) -> Any:
    """Return the least or the greatest of values by their distances: torch's own needs tensors of one shape."""
    return reduce(lambda a, b: (a + b + sign * sympy.Abs(a - b)) / 2, values)


def _quadratic(sympy: Any, found: Any, variables: list[Any], start: Point) -> Quadratic | None:
    """Return the quadratic, if it is one whose gradient is zero somewhere."""
    exact = sympy.nsimplify(found, rational=True)  # 0.1 is a tenth: a determinant that is 0 is so by rounding, too
    hessian = sympy.hessian(exact, variables) if exact.is_polynomial(*variables) else None
    if hessian is None or hessian.free_symbols:
        return None
    slope = sympy.Matrix([exact.diff(x) for x in variables]).subs(dict.fromkeys(variables, 0))
    if any(slope) and hessian.det() == 0:
        return None
    minimum = hessian.LUsolve(-slope) if any(slope) else slope
    least = float(exact.subs(dict(zip(variables, minimum, strict=True))))
    curvatures = hessian.diagonal() if hessian.is_diagonal() else None
    matrix = tuple(tuple(map(float, row)) for row in hessian.tolist())
    return Quadratic(tuple(map(float, curvatures)) if curvatures else matrix, start, tuple(map(float, minimum)), least)


def _torch(sympy: Any, found: Any, variables: list[Any]) -> Callable[[Tensor], Tensor]:
    """Return the expression as a function of rows."""
    evaluated = sympy.lambdify(variables, sympy.N(found), modules="torch")

    def f(x: Tensor) -> Tensor:
        values: Tensor = evaluated(*x.unbind(-1))
        return values

    return f
