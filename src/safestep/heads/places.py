"""The tensors in what a model returns: where each lies, and which of them is a copy, a cast or a view of another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor

Path = tuple[str | int, ...]
"""Where a tensor lies in an output: keys, attributes and positions, from the outside in."""

_DEEPEST = 8
_COPIES = frozenset(
    f"{name}Backward"
    for name in ("ToCopy", "Clone", "View", "UnsafeView", "ReshapeAlias", "Alias", "Unsqueeze", "Squeeze")
)
"""Nodes of a graph whose result holds the numbers of their argument, in the same order."""
_TURNS = frozenset({"TBackward", "TransposeBackward", "PermuteBackward"})
"""Nodes whose result holds them with the dimensions in another order."""

Root = tuple[Any, int]
"""A node of a graph, and which of its results is meant."""


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists, mappings and objects with attributes, a few levels deep."""
    return (tensor for _, tensor in located(value))


def located(value: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Yield the tensors in nested tuples, lists, mappings and objects with attributes, with their places."""
    if isinstance(value, Tensor):
        yield path, value
    elif len(path) > _DEEPEST:  # an output that holds itself
        return
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from located(item, (*path, key))
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from located(item, (*path, index))
    elif isinstance(getattr(value, "__dict__", None), dict) and not isinstance(value, (torch.nn.Module, type)):
        for name, item in vars(value).items():
            if isinstance(item, (Tensor, tuple, list, Mapping)) or is_dataclass(item):
                yield from located(item, (*path, name))


def at(value: Any, path: Path) -> Any:
    """Return what lies at a place of an output.

    Raises:
        LookupError: if there is nothing.
    """
    for key in path:
        keyed: Any = value
        if isinstance(value, Mapping) or (isinstance(value, (tuple, list)) and isinstance(key, int)):
            value = keyed[key]
        elif isinstance(key, str) and hasattr(value, key):
            value = getattr(value, key)
        else:
            raise LookupError(f"the model's output has no {named(path)} any more")
    return value


def named(path: Path) -> str:
    """Return a place in words.

    Example:
        >>> named(()), named(("logits",)), named(("aux", 0))
        ('the output', 'output.logits', 'output.aux[0]')
    """
    if not path:
        return "the output"
    return "output" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)


def root(tensor: Tensor) -> tuple[Any, int, bool]:
    """Return the node of the graph that made the numbers of a tensor, looking through casts, clones and views.

    A gradient that never reaches a copy (the loss was taken before it was made) does reach its original.

    Returns:
        The node, which of its results it is, and whether that is another tensor than the one given.
    """
    (node, index), first = _behind_copies((tensor.grad_fn, tensor.output_nr)), tensor.grad_fn
    return node, index, node is not first


def turned(tensor: Tensor) -> tuple[tuple[int, ...], Root] | None:
    """Return where the numbers of a transposed tensor come from; None if it is none.

    Returns:
        The permutation that takes a gradient back there, and the root behind it. No node of the graph is held.

    Example:
        >>> z = torch.ones(2, 3, requires_grad=True) * 2
        >>> dims, behind = turned(z.T)
        >>> behind == root(z)[:2], z.T.permute(dims).shape
        (True, torch.Size([2, 3]))
    """
    node, _, _ = root(tensor)
    if node is None or _kind(node) not in _TURNS or node.next_functions[0][0] is None:
        return None
    marks = [2**k for k in range(tensor.ndim)]  # as strides, they tell what became of each dimension
    back = node(torch.empty_strided(tensor.shape, marks, device="meta"))
    return tuple(map(marks.index, back.stride())), _behind_copies(node.next_functions[0])


def _kind(node: Any) -> str:
    name: str = node.name().rstrip("0123456789")
    return name


def _behind_copies(start: Root) -> Root:
    node, index = start
    while node is not None and _kind(node) in _COPIES:
        behind, number = node.next_functions[0]
        if behind is None or behind.name().endswith("AccumulateGrad"):
            break
        node, index = behind, number
    return node, index


def rounded(tensor: Tensor, most: int = 2000) -> bool:
    """Return whether a value on the way to a tensor had a type of less precision than float32, by its graph."""
    queue: list[Any] = [tensor.grad_fn]
    known: set[Any] = set()
    while queue and len(known) < most:
        node = queue.pop()
        if node is None or node in known:
            continue
        known.add(node)
        if any(meta.dtype in {torch.float16, torch.bfloat16} for meta in getattr(node, "_input_metadata", ())):
            return True
        queue += [behind for behind, _ in node.next_functions]
    return False


def upstream(tensors: Mapping[Path, Tensor], most: int = 20_000) -> set[Path]:
    """Return those tensors that others are computed from: features, not heads."""
    nodes: dict[Any, Path] = {}
    for path, tensor in tensors.items():
        node, _, _ = root(tensor)
        if node is not None:
            nodes.setdefault(node, path)
    if len(nodes) < 2:
        return set()
    found: set[Path] = set()
    queue = [behind for node in nodes for behind, _ in node.next_functions]
    known: set[Any] = set()
    while queue and len(known) < most:
        node = queue.pop()
        if node is None or node in known:
            continue
        known.add(node)
        if node in nodes:
            found.add(nodes[node])
        queue += [behind for behind, _ in node.next_functions]
    return found


def places(index: Tensor, shape: Sequence[int]) -> tuple[Tensor, ...]:
    """Return flat indices as one index for each dimension; `torch.unravel_index` imports torch's compiler.

    Example:
        >>> places(torch.tensor([0, 5]), (2, 3))
        (tensor([0, 1]), tensor([0, 2]))
    """
    found = []
    for size in reversed(shape):
        found.append(index % size)
        index = index // size
    return tuple(reversed(found))
