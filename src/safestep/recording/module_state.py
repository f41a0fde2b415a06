"""Saves and restores what a forward may change besides parameters and buffers (`Snapshot`)."""

from __future__ import annotations

import enum
import random
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from safestep.recording.mutable import MutableKind, attributes, is_array, kind_of, own_attributes, same

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_CONSTANT = (
    *(int, float, complex, str, bytes, type(None), type, range, enum.Enum, types.ModuleType, types.BuiltinFunctionType),
    *(types.FunctionType, types.MethodType, torch.dtype, torch.device, torch.Size, torch.layout),
)
_OPEN = frozenset({"builtins", "collections", "dataclasses", "random", "types", "itertools"})
"""Parts of Python whose objects may hold what a model changes; others are machinery (locks, files, loggers)."""
_MACHINERY = frozenset({"torch", "safestep", "lightning", "pytorch_lightning", "lightning_fabric", "accelerate"})
_SMALL = 1 << 16
"""Elements of a tensor that is always copied; larger ones are if forwards are known to write to them."""
_MOST = 20_000
_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Node:
    """Something that can change in place.

    Attributes:
        name: where it was found, from the model on.
        thing: the object itself.
        silent: whether it may change without a word: batch normalisation writes past the version counter.
    """

    name: str
    thing: Any
    silent: bool = False


@dataclass(frozen=True, slots=True)
class _Kept:
    """A node as it was.

    Attributes:
        node: the node.
        kind: its kind.
        mark: tells whether it changed.
        copy: puts it back; None where nothing does, or where it is too large.
    """

    node: Node
    kind: MutableKind
    mark: Any
    copy: Any

    @classmethod
    def of(cls, node: Node, copies: Callable[[Node], bool]) -> _Kept:
        kind = kind_of(node.thing)
        size = 0 if not kind.sized else node.thing.numel() if isinstance(node.thing, Tensor) else node.thing.size
        copied = kind.copy is not None and (size <= _SMALL or node.silent or copies(node))
        return cls(node, kind, kind.mark(node.thing), kind.copy(node.thing) if kind.copy and copied else None)

    @property
    def changed(self) -> bool:
        return self.node.silent or not same(self.mark, self.kind.mark(self.node.thing))


class Snapshot:
    """Some nodes as they were.

    Args:
        nodes: what to keep.
        copies: tells which large tensors and arrays are worth a copy.
    """

    def __init__(self, nodes: Iterable[Node] = (), copies: Callable[[Node], bool] = lambda _: True) -> None:
        self._kept = [_Kept.of(node, copies) for node in nodes]

    def changed(self) -> list[Node]:
        """Return what is not as it was."""
        return [kept.node for kept in self._kept if kept.changed]

    def opaque(self) -> list[str]:
        """Return the names of what changed and is of a kind that nothing puts back (an iterator that moved on)."""
        return [kept.node.name for kept in self._kept if kept.kind.copy is None and kept.changed]

    def only(self, names: set[str]) -> Snapshot:
        """Return the part with these names."""
        part = Snapshot()
        part._kept = [kept for kept in self._kept if kept.node.name in names]
        return part

    def restore(self) -> list[str]:
        """Put back whatever changed; return the names of what cannot be."""
        lost = []
        for kept in self._kept:
            if kept.changed:
                if kept.copy is None:
                    lost.append(kept.node.name)
                else:
                    kept.kind.put_back(kept.node.thing, kept.copy)
        return lost


def reachable(model: nn.Module) -> Iterator[Node]:
    """Yield what a forward of the model may change: attributes, containers, tensors, arrays, generators, objects.

    Parameters and buffers are not among them. Neither is what only a closure or a global knows, but for the closures of
    forward hooks; nor a trainer, an optimizer, a lock or a file that a module holds on to.
    """
    modules = dict(model.named_modules())
    walk = _Walk({id(one) for one in (*model.parameters(), *model.buffers(), *modules.values())})
    for name, module in modules.items():
        yield Node(name or "the model", module)
        for key, value in own_attributes(module).items():
            yield from walk.inside(value, f"{name}.{key}".lstrip("."))
        for hook in (hook for hooks in _HOOKS for hook in vars(module)[hooks].values()):
            for value in _held_by(hook):
                yield from walk.inside(value, f"a hook of {name or 'the model'}")


class _Walk:
    """Goes through objects once each.

    Args:
        seen: the identities of those that are not to be looked at.
    """

    def __init__(self, seen: set[int]) -> None:
        self._seen, self._left = seen, _MOST

    def inside(self, value: Any, name: str, depth: int = 0) -> Iterator[Node]:
        """Yield a value and what is in it."""
        if isinstance(value, _CONSTANT) or id(value) in self._seen or depth > _DEEPEST or not self._left:
            return
        if not isinstance(value, (Tensor, torch.Generator, nn.Module)) and _machinery(type(value)):
            return
        self._seen.add(id(value))
        self._left -= 1
        if isinstance(value, nn.Module):  # one that is not registered
            self._seen.update(map(id, value.parameters()))
            for key, buffer in value.named_buffers(prefix=name):
                self._seen.add(id(buffer))
                yield Node(key, buffer, silent=True)
        if not isinstance(value, (tuple, frozenset)):
            yield Node(name, value)
        for key, item in _items(value):
            yield from self.inside(item, f"{name}{key}", depth + 1)


def _machinery(kind: type) -> bool:
    root = kind.__module__.split(".", 1)[0]
    return root in _MACHINERY or (root in sys.stdlib_module_names and root not in _OPEN)


def _items(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", item) for key, item in value.items()]
    if isinstance(value, (tuple, list, deque, set, frozenset)):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    if isinstance(value, nn.Module):
        inner = {**value._modules, **own_attributes(value)}
        return [(f".{key}", item) for key, item in inner.items()]
    if isinstance(value, (Tensor, torch.Generator, random.Random)) or is_array(value):
        return []
    return [(f".{key}", item) for key, item in attributes(value).items()]


def _held_by(hook: Any) -> list[Any]:
    """Return what a hook may change."""
    if isinstance(hook, partial):
        return [*hook.args, *hook.keywords.values(), *_held_by(hook.func)]
    if isinstance(hook, types.MethodType):
        return [hook.__self__]
    return [cell.cell_contents for cell in hook.__closure__ or ()] if isinstance(hook, types.FunctionType) else [hook]
