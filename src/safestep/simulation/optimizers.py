"""An optimizer of torch as it is written on a command line: its name, a learning rate, and options."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from safestep.errors import UnknownNameError, first_line
from safestep.experiments.runner.names import nearest
from safestep.experiments.runner.settings import SettingError
from safestep.simulation.values import value


def optimizers() -> Mapping[str, type[Optimizer]]:
    """Return the optimizers of the installed torch by name in lower case, those that refuse an ensemble among them.

    Example:
        >>> optimizers()["sgd"].__name__
        'SGD'
    """
    found = (getattr(torch.optim, name) for name in dir(torch.optim))
    kinds = [kind for kind in found if isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer]
    return {kind.__name__.lower(): kind for kind in kinds}


def read_optimizer(name: str, rate: float, options: Sequence[str] = ()) -> partial[Optimizer]:
    """Return what makes an optimizer of a list with one parameter.

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
    known = optimizers()
    if name.lower() not in known:
        raise UnknownNameError(f"no optimizer {name!r}{nearest(name.lower(), list(known))}")
    if not math.isfinite(rate):
        raise SettingError(f"lr={rate}: expected a finite number")
    kind = known[name.lower()]
    keywords: dict[str, Any] = {"lr": rate, **_options(options, kind)}
    try:
        kind([torch.nn.Parameter(torch.zeros(1, 1, dtype=torch.float64))], **keywords)
    except (ValueError, TypeError, RuntimeError) as error:
        told = ", ".join([f"lr={rate:g}", *options])
        raise SettingError(f"{kind.__name__} with {told}: {first_line(error)}") from None
    return partial(kind, **keywords)


def _options(texts: Sequence[str], kind: type[Optimizer]) -> dict[str, Any]:
    known = [name for name in inspect.signature(kind).parameters if name not in {"params", "lr"}]
    found = {}
    for text in texts:
        name, equals, rest = (part.strip() for part in text.partition("="))
        if not equals:
            raise SettingError(f"option={text}: expected NAME=VALUE with a name of {', '.join(known)}")
        if name == "lr":
            raise SettingError(f"option={text}: expected the learning rate as --lr {rest}")
        if name not in known:
            raise UnknownNameError(f"{kind.__name__} has no option {name!r}{nearest(name, known)}")
        found[name] = value(rest)
    return found
