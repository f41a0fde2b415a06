"""The former name of `safestep.tools.diagnostics`."""

from __future__ import annotations

import warnings
from typing import Any

from safestep.tools import diagnostics


def __getattr__(name: str) -> Any:
    if name not in diagnostics.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"import {name} from safestep.tools.diagnostics, as the module is now called", DeprecationWarning, 2)
    return getattr(diagnostics, name)
