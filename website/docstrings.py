"""Docstrings as mkdocstrings reads them: its word for the section of examples that run is the plural."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Plural(griffe.Extension):
    """Renames the section, so that its lines come out as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change one docstring, of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
