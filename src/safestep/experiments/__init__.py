"""One experiment per file, found by name and imported only when asked for. Behind `safestep list` and `run`."""

from __future__ import annotations

import importlib
from typing import Any

from safestep.errors import UnknownNameError
from safestep.experiments.runner.experiment import Experiment
from safestep.experiments.runner.names import nearest

NAMES = (
    "digits-sgd",
    "digits-momentum",
    "digits-adam",
    "protection",
    "drift-throttle",
    "drift-map",
    "drift-optimizers",
    "noisy-descent",
    "noise-floor",
)
"""Every experiment. The file of ``digits-sgd`` is ``digits_sgd.py``, and in it ``experiment`` is the experiment."""


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
    experiment: Experiment[Any] = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").experiment
    return experiment
