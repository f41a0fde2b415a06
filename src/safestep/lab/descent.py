"""The former place of `safestep.descent`: its names are found here still, with a warning."""

from __future__ import annotations

import warnings
from typing import Any

from safestep import descent


def __getattr__(name: str) -> Any:
    if name not in descent.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn("safestep.lab.descent is safestep.descent now", DeprecationWarning, stacklevel=2)
    return getattr(descent, name)
