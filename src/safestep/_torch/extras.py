"""Optional dependencies: imported where they are used, missed with a message that names the extra."""

from __future__ import annotations

import importlib
from typing import Any

from safestep.errors import MissingExtraError


def need(module: str, extra: str) -> Any:
    """Import an optional module.

    Args:
        module: its import name.
        extra: the extra of safestep that brings it.

    Returns:
        The module.

    Raises:
        MissingExtraError: if it is not installed; the message says what to install.

    Example:
        >>> need("json", "none").dumps([1])
        '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != root:
            raise  # installed, but broken inside: not ours to explain
        raise MissingExtraError(
            f"this part of safestep needs {root}, which is not installed: "
            f"install safestep with its extra '{extra}' (from a checkout: pip install '.[{extra}]')"
        ) from None
