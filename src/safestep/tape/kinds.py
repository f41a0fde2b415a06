"""Classifies an operation: a view, one with a rule of its own, one for the generic rule, or none at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from safestep.tape.generic import GENERIC
from safestep.tape.rules import RULES, Position, Rule

_ADRIFT = {"set_", "resize_", "resize_as_", "_conj", "_neg_view", "embedding_renorm_", "_resize_output_"}
"""Operations after which a tensor's storage no longer says what its elements are."""

_SHAPE_ONLY = {
    "empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like",
    "new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided",
}  # fmt: skip
"""Operations that read no element of their arguments."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a tape does about an operation.

    Attributes:
        name: of the operation, for messages.
        silent: whether nothing needs to be recorded: it makes views, or reads no values.
        func: its form without side effects, which rules see.
        rule: how to differentiate it; None if that is impossible.
        reason: why it is impossible.
        writes: the arguments that it overwrites.
        out: whether the last of them is an ``out=`` argument, which it does not read.
        returns_written: whether it returns what it overwrites.
    """

    name: str
    silent: bool
    func: Any = None
    rule: Rule | None = None
    reason: str = ""
    writes: tuple[Position, ...] = ()
    out: bool = False
    returns_written: bool = False


_KNOWN: dict[Any, Kind] = {}


def kind_of(func: Any) -> Kind:
    """Return what sort of operation this is."""
    found = _KNOWN.get(func)
    if found is None:
        found = _KNOWN[func] = _classify(func)
    return found


def _classify(func: Any) -> Kind:
    name = str(func)
    # Without a kernel for autograd, as other people's operations may be, dual numbers would lose a tangent in silence.
    if not isinstance(func, torch._ops.OpOverload) or func.namespace != "aten":
        return Kind(name, silent=False, reason="is not an operation of torch itself")
    arguments = func._schema.arguments
    writes: tuple[Position, ...] = tuple(
        a.name if a.kwarg_only else i for i, a in enumerate(arguments) if a.alias_info and a.alias_info.is_write
    )
    plain = func._schema.name.removeprefix("aten::")
    views = [r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns]
    if plain in _ADRIFT:
        return Kind(name, silent=False, reason="moves or reinterprets a storage", writes=writes)
    if plain in _SHAPE_ONLY or torch.Tag.inplace_view in func.tags or (views and all(views)):
        return Kind(name, silent=True)
    functional = _functional(func, writes) if writes else func
    if functional is None:
        return Kind(name, silent=False, reason="writes in place to several tensors, or in no known way", writes=writes)
    packet = f"{functional.namespace}.{functional._schema.name.split('::')[1]}"
    found = RULES.get(str(functional)) or RULES.get(packet)
    chance = found is None and torch.Tag.nondeterministic_seeded in func.tags
    return Kind(
        name,
        silent=False,
        func=functional,
        rule=None if chance else found or GENERIC,
        reason="draws random numbers" if chance else "",
        writes=writes,
        out=any(argument.is_out for argument in arguments),
        returns_written=any(r.alias_info is not None and r.alias_info.is_write for r in func._schema.returns),
    )


def _functional(func: Any, writes: tuple[Position, ...]) -> Any:
    """Return the operation that computes what an in-place or ``out=`` operation writes."""
    namespace, name = func._schema.name.split("::")
    arguments = func._schema.arguments
    if len(writes) != 1 or len(func._schema.returns) != 1:
        return func if f"aten.{name}" in RULES or str(func) in RULES else None  # its rule knows what it writes
    wanted = [(a.name, str(a.type)) for a in arguments if not a.is_out]
    packet = getattr(getattr(torch.ops, namespace), name if arguments[-1].is_out else name.rstrip("_"), None)
    for overload in packet.overloads() if packet is not None else ():
        candidate = getattr(packet, overload)
        theirs = candidate._schema.arguments
        if [(a.name, str(a.type)) for a in theirs] == wanted and not any(a.alias_info for a in theirs):
            return candidate
    return None
