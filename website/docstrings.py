"""Docstrings as mkdocstrings reads them: its word for a section of examples is the plural, and a table is code."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
TABLE = re.compile(r"^ *=+(?: +=+)+\n((?:.*\n)*?) *=+(?: +=+)+$", re.MULTILINE)


class AsMarkdown(griffe.Extension):
    """Changes what Markdown would take for something else."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change one docstring, of a module, class, function or attribute."""
        if obj.docstring is not None:
            text = EXAMPLE.sub(r"\1Examples:", obj.docstring.value)
            obj.docstring.value = TABLE.sub(as_code, text)


def as_code(table: re.Match[str]) -> str:
    """Return the lines of a table as a block of code, which keeps its columns."""
    return re.sub("^(?=.)", "    ", table.group(1).replace("``", ""), flags=re.MULTILINE)
