"""Parts of a package that are imported when they are first asked for, as ``safestep.plots`` is."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import ModuleType


def lazily(package: str, parts: Mapping[str, str]) -> tuple[Callable[[str], ModuleType], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and the ``__dir__`` of a package, some of whose parts are imported late.

    Type checkers have to be told apart from this, by an import under ``TYPE_CHECKING``: with a ``__getattr__`` that
    they see, they would let every misspelt name pass.

    Args:
        package: its name.
        parts: the names of the parts, and what has to be installed for ``dir`` to list each; nothing if that is empty.

    Example:
        >>> import safestep
        >>> safestep.integrations.__name__
        'safestep.integrations'
    """

    def get(name: str) -> ModuleType:
        if name not in parts:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        return importlib.import_module(f"{package}.{name}")

    def listed() -> list[str]:
        there = {name for name, needed in parts.items() if not needed or find_spec(needed) is not None}
        return sorted({*vars(sys.modules[package]), *there})

    return get, listed
