"""Experiments: a folder for each study, found by name. Behind `safestep list` and `run`."""

from __future__ import annotations

import importlib
from typing import Any

from safestep.errors import UnknownNameError
from safestep.experiments.runner.experiment import Experiment
from safestep.experiments.runner.names import nearest

_STUDIES = {
    "digits-sgd": "digits",
    "digits-momentum": "digits",
    "digits-adam": "digits",
    "protection": "protection",
    "drift-throttle": "drift",
    "drift-map": "drift",
    "drift-optimizers": "drift",
    "noisy-descent": "noise",
    "noise-floor": "noise",
}
"""The folder of every experiment. In ``digits/digits_sgd.py``, ``experiment`` is ``digits-sgd``."""
NAMES = tuple(_STUDIES)


def find(name: str) -> Experiment[Any]:
    """Return an experiment by its name.

    Raises:
        UnknownNameError: if there is none; the message says which is nearest.

    Example:
        >>> find("digits-sgd").name
        'digits-sgd'
    """
    if name not in NAMES:
        raise UnknownNameError(f"no experiment {name!r}{nearest(name, NAMES)}")
    module = f"{__name__}.{_STUDIES[name]}.{name.replace('-', '_')}"
    experiment: Experiment[Any] = importlib.import_module(module).experiment  # imported only when asked for
    return experiment
