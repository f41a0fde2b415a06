"""Optimizer, schedule, noise and policy as they are written on a command line."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch.optim import Optimizer

from safestep.descent import Gaussian
from safestep.errors import UnknownNameError, first_line
from safestep.experiments.runner.names import nearest
from safestep.experiments.runner.settings import SettingError
from safestep.policy import Cap, Pin, Policy, Throttle, Watch
from safestep.schedules import Constant, Cosine, Exponential, Inverse, Polynomial, Schedule, Staircase, WarmUp
from safestep.simulation.user_file import read_function

T = TypeVar("T")

SCHEDULES: Mapping[str, Callable[..., Schedule]] = {
    "constant:VALUE": Constant,
    "inverse:BETA": Inverse,
    "polynomial:BETA,ALPHA": Polynomial,
    "exponential:LAMBDA": Exponential,
    "staircase:EVERY,RATIO": Staircase,
    "cosine:STEPS": Cosine,
    "warmup:STEPS": WarmUp,
}
"""Schedules by how each is written."""
POLICIES: Mapping[str, Callable[..., Policy]] = {
    "cap:TARGET": Cap,
    "pin:TARGET": Pin,
    "throttle:CHI": lambda chi=1.5: Throttle(chi=chi),
    "watch": Watch,
}
"""Policies by how each is written."""


def numbers(text: str, what: str) -> tuple[float, ...]:
    """Return finite numbers that are separated by commas.

    Example:
        >>> numbers("-5, -2e1", "start")
        (-5.0, -20.0)
    """
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = (math.nan,)
    if not all(map(math.isfinite, found)):
        raise SettingError(f"{what}={text}: expected finite numbers separated by commas")
    return found


def rows(text: str, what: str) -> tuple[tuple[float, ...], ...]:
    """Return the rows of a matrix, which are separated by semicolons.

    Example:
        >>> rows("3,1;1,2", "quadratic")
        ((3.0, 1.0), (1.0, 2.0))
    """
    found = tuple(numbers(row, what) for row in text.split(";"))
    if len({len(row) for row in found}) > 1:
        raise SettingError(f"{what}={text}: expected rows of one length")
    return found


def value(text: str) -> Any:
    """Return a Python value: true, false, none, a number, or a tuple of these; anything else stays a text.

    Example:
        >>> value("3"), value("true"), value("0.9, 0.999"), value("none"), value("mean")
        (3, True, (0.9, 0.999), None, 'mean')
    """
    word = text.strip()
    try:
        return ast.literal_eval(word.capitalize() if word.isalpha() else word)
    except (ValueError, SyntaxError):
        return word


def read_optimizer(name: str, rate: float, options: Sequence[str] = ()) -> partial[Optimizer]:
    """Return what makes an optimizer of torch of a list with one parameter.

    Args:
        name: of a class of `torch.optim`, in letters of either case.
        rate: learning rate.
        options: texts ``name=value``.

    Raises:
        UnknownNameError: for an optimizer or option that does not exist.
        SettingError: for values that the optimizer does not take.

    Example:
        >>> read_optimizer("adam", 0.1, ["betas=0.8,0.9"]).keywords
        {'lr': 0.1, 'betas': (0.8, 0.9)}
    """
    kinds = [kind for kind in vars(torch.optim).values() if isinstance(kind, type) and issubclass(kind, Optimizer)]
    known = {kind.__name__.lower(): kind for kind in kinds if kind is not Optimizer}
    if name.lower() not in known:
        raise UnknownNameError(f"no optimizer {name!r}{nearest(name.lower(), list(known))}")
    if not math.isfinite(rate):
        raise SettingError(f"lr={rate}: expected a finite number")
    kind = known[name.lower()]
    names = [option for option in inspect.signature(kind).parameters if option not in {"params", "lr"}]
    keywords: dict[str, Any] = {"lr": rate}
    for text in options:
        option, equals, rest = (part.strip() for part in text.partition("="))
        if not equals or option == "lr":
            raise SettingError(
                f"option={text}: expected NAME=VALUE with a name of {', '.join(names)}, and the learning rate as --lr"
            )
        if option not in names:
            raise UnknownNameError(f"{kind.__name__} has no option {option!r}{nearest(option, names)}")
        keywords[option] = value(rest)
    try:
        kind([torch.nn.Parameter(torch.zeros(1, 1, dtype=torch.float64))], **keywords)
    except (ValueError, TypeError, RuntimeError) as error:
        what = ", ".join([f"lr={rate:g}", *options])
        raise SettingError(f"{kind.__name__} with {what}: {first_line(error)}") from None
    return partial(kind, **keywords)


def read_schedule(text: str) -> Callable[[int], float]:
    """Return the schedule that a text names: one of `SCHEDULES`, or ``FILE.py:FUNCTION``, a function of t.

    Example:
        >>> read_schedule("staircase:20,0.5")
        Staircase(every=20, ratio=0.5)
    """
    return read_function(text) or _named(text, "schedule", SCHEDULES)


def read_policy(text: str) -> Policy:
    """Return the policy that a text names, one of `POLICIES`.

    Example:
        >>> read_policy("cap:0.5"), read_policy("cap")
        (Cap(target=0.5, schedule=None), Cap(target=1.0, schedule=None))
    """
    return _named(text, "policy", POLICIES)


def _named(text: str, what: str, kinds: Mapping[str, Callable[..., T]]) -> T:
    name, colon, rest = (part.strip() for part in text.partition(":"))
    forms = {form.partition(":")[0]: form for form in kinds}
    if name.lower() not in forms:
        raise UnknownNameError(f"no {what} {name!r}{nearest(name.lower(), list(forms))}")
    form = forms[name.lower()]
    if colon and ":" not in form:
        raise SettingError(f"{what}={text}: expected {form}, which has no number")
    arguments = [value(part) for part in rest.split(",")] if colon else []
    try:
        return kinds[form](*arguments)
    except (ValueError, TypeError) as error:
        raise SettingError(f"{what}={text}: {error}. Expected {form}") from None


def read_noise(text: str, batch: int) -> Gaussian | None:
    """Return Gaussian noise, or None.

    Args:
        text: a standard deviation, one for each variable, the rows of a covariance matrix, or ``none``.
        batch: the gradient is as if it were the mean over so many samples.

    Raises:
        SettingError: for anything else.
        DescentError: for numbers that are no standard deviations or covariance.

    Example:
        >>> read_noise("1,3", 2), read_noise("none", 1)
        (Gaussian(scale=(1.0, 3.0), covariance=None, batch=2), None)
        >>> read_noise("2,1;1,2", 1).covariance
        ((2.0, 1.0), (1.0, 2.0))
    """
    if text.strip().lower() == "none":
        if batch != 1:
            raise SettingError(f"batch={batch} without noise: expected a noise, which a larger batch makes smaller")
        return None
    if ";" in text:
        return Gaussian(covariance=rows(text, "noise"), batch=batch)
    scale = numbers(text, "noise")
    return Gaussian(scale[0] if len(scale) == 1 else scale, batch=batch)
