"""Experiments: a folder for each study, found by name. Behind `safestep list` and `run`.

A study is a package in this folder, or an entry point ``safestep.experiments`` of another distribution. A package has
``EXPERIMENTS``: from the name of each of its experiments to the module in it where ``experiment`` is that one. An entry
point has the name of an experiment, and is the experiment.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from typing import Any

from safestep.errors import UnknownNameError
from safestep.experiments.runner.experiment import Experiment
from safestep.experiments.runner.names import nearest


def _imported(module: str) -> Any:
    return importlib.import_module(module).experiment


def _found() -> dict[str, Callable[[], Any]]:
    """Return what loads each experiment; none of them is imported yet."""
    loaders: dict[str, Callable[[], Any]] = {}
    for folder in (one.name for one in pkgutil.iter_modules(__path__) if one.ispkg):
        study = f"{__name__}.{folder}"
        files: dict[str, str] = vars(importlib.import_module(study)).get("EXPERIMENTS", {})
        loaders |= {name: partial(_imported, f"{study}.{file}") for name, file in files.items()}
    return loaders | {point.name: point.load for point in entry_points(group=__name__)}


_LOADERS = _found()
NAMES = tuple(_LOADERS)
"""Every experiment."""


def find(name: str) -> Experiment[Any]:
    """Return an experiment by its name.

    Raises:
        UnknownNameError: if there is none; the message says which is nearest.

    Example:
        >>> find("digits-sgd").name
        'digits-sgd'
    """
    if name not in _LOADERS:
        raise UnknownNameError(f"no experiment {name!r}{nearest(name, NAMES)}")
    experiment: Experiment[Any] = _LOADERS[name]()
    return experiment


def known(name: str) -> Experiment[Any] | None:
    """Return an experiment by its name; None for one of another version of safestep."""
    return find(name) if name in _LOADERS else None
