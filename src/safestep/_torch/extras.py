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
        if error.name and not module.startswith(error.name.split(".")[0]):
            raise  # installed, but broken inside: not ours to explain
        raise MissingExtraError(
            f"this part of safestep needs {module.split('.', maxsplit=1)[0]}, which is not installed: "
            f"install safestep with its extra '{extra}' (from a checkout: pip install '.[{extra}]')"
        ) from None
