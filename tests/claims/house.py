"""Draws the house from the code: rooms in the order of imports, and the first line of every file in them."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "house.md"
_SOURCE = ROOT / "src" / "safestep"
_HEAD = """# The house

What is where. A room imports from rooms further down only (import-linter holds it); a line is the first of its file.
`make tables` writes this page from the source; a test compares.
"""


def made() -> str:
    """Return the page."""
    return _HEAD + "".join(_room(floor) for floor in _floors())


def _floors() -> Iterator[list[str]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(one for one in settings["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    for layer in contract["layers"]:
        yield [name.strip() for name in layer.split("|")]


def _room(floor: list[str]) -> str:
    return "".join(_folder(_SOURCE / name) if (_SOURCE / name).is_dir() else _lone(name) for name in floor)


def _lone(name: str) -> str:
    return f"\n## {name}.py\n\n{_first_line(_SOURCE / f'{name}.py')}\n"


def _folder(folder: Path, depth: int = 2) -> str:
    name = folder.relative_to(_SOURCE).as_posix()
    text = f"\n{'#' * depth} {name}/\n\n{_first_line(folder / '__init__.py')}\n"
    files = [file for file in sorted(folder.glob("*.py")) if file.stem != "__init__"]
    if files:
        text += "\n" + "".join(f"* `{file.stem}`: {_first_line(file)}\n" for file in files)
    inner = [one for one in sorted(folder.iterdir()) if (one / "__init__.py").is_file()]
    return text + "".join(_folder(one, depth + 1) for one in inner)


def _first_line(file: Path) -> str:
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.split("\n", 1)[0]
