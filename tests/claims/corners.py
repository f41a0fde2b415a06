"""Finds in the source what torch does not document: names with a leading underscore, frames, and a few more."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from torch import nn

SOURCE = Path(__file__).parents[2] / "src" / "safestep"
OPENED = {"__code__", "__wrapped__"}
"""Attributes of functions that give away how torch is written inside."""
UNMARKED = {"fsdp_params", "unsharded_accumulated_grad"}
"""Undocumented attributes of torch without an underscore."""
SPOKEN = {"DisableContext.", "CheckpointFunction"}
"""Names of torch's own classes that are looked for as texts."""
_LOOKUPS = {"getattr", "setattr", "hasattr", "delattr"}
_PRIVATE = re.compile(r"_(?!_)\w*")
_DOTTED = re.compile(r"torch(\.\w+)*\._(?!_)\w[\w.]*")


def found(source: Path = SOURCE) -> dict[str, list[str]]:
    """Return the files of every name, both sorted; a name that is called on an object begins with a dot."""
    names: dict[str, set[str]] = {}
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(source.rglob("*.py"))}
    own = frozenset(name for tree in trees.values() for name in _defined(tree))
    for path, tree in trees.items():
        for name in _used(tree, own):
            names.setdefault(name, set()).add(path.relative_to(source).as_posix())
    return {name: sorted(files) for name, files in sorted(names.items())}


def _used(tree: ast.Module, own: frozenset[str]) -> Iterator[str]:
    roots = dict(_imported(tree))
    inner = {node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    quiet = set(_docstrings(tree))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (name for name in _named_by(node) if _private(name))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in quiet:
            if _DOTTED.fullmatch(node.value) or node.value in SPOKEN:
                yield node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _LOOKUPS:
            key = node.args[1] if len(node.args) > 1 else None
            if isinstance(key, ast.Constant) and _foreign(str(key.value), own):
                yield f".{key.value}"
        elif isinstance(node, ast.Attribute):
            chain = _chain(node)
            if chain and chain[0] in roots:
                full = ".".join((roots[chain[0]], *chain[1:]))
                if node not in inner and (_private(full) or chain[-1] in OPENED):
                    yield full
            elif node.attr in OPENED or _foreign(node.attr, own, on_self=_own(node.value)):
                yield f".{node.attr}"


def _foreign(name: str, own: frozenset[str], *, on_self: bool = False) -> bool:
    """Return whether an attribute of this name is torch's: not one that the package itself gives to its objects."""
    if name in UNMARKED:
        return True
    return bool(_PRIVATE.fullmatch(name)) and (name not in own or (name in _torchs() and not on_self))


@cache
def _torchs() -> frozenset[str]:
    parameter = nn.Parameter(torch.zeros(1))
    objects = (parameter, nn.Module(), torch.optim.SGD([parameter]))
    return frozenset(name for one in objects for name in (*dir(one), *getattr(one, "__dict__", ())))


def _private(dotted: str) -> bool:
    return dotted.split(".", maxsplit=1)[0] in {"torch", "sys"} and any(map(_PRIVATE.fullmatch, dotted.split(".")))


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the local names of what is torch's, and of sys, each with what it stands for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.split(".")[0]
                if root in {"torch", "sys"}:
                    yield (alias.asname, alias.name) if alias.asname else (root, root)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _named_by(node: ast.Import | ast.ImportFrom) -> list[str]:
    module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    return [module + alias.name for alias in node.names]


def _chain(node: ast.expr) -> tuple[str, ...]:
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute) and (before := _chain(node.value)):
        return (*before, node.attr)
    return ()


def _defined(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a file gives to functions, classes and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _own(node.value):
            yield node.attr


def _own(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value
