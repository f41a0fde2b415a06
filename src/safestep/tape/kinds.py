"""Classifies an operation: a view, one with a rule of its own, one for the generic rule, or none at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from safestep.tape.generic import GENERIC
from safestep.tape.rules import RULES, TangentRule
from safestep.tape.signature import Signature

_MOVES_STORAGE = {"set_", "resize_", "resize_as_", "_conj", "_neg_view", "embedding_renorm_", "_resize_output_"}
"""Operations after which a tensor's storage no longer says what its elements are."""

_SHAPE_ONLY = {
    "empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like",
    "new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided",
}  # fmt: skip
"""Operations that read no element of their arguments."""


@dataclass(frozen=True, slots=True)
class OpKind:
    """What a tape does about an operation.

    Attributes:
        name: of the operation, for messages.
        signature: its arguments; None where nothing needs to be recorded: it makes views, or reads no values.
        func: its form without side effects, which rules see.
        rule: how to differentiate it; None if that is impossible.
        reason: why it is impossible.
        writes: the places of the arguments that it overwrites.
        reads: how many arguments there are without ``out=`` ones, which come last.
        returns_written: whether it returns what it overwrites.
    """

    name: str
    signature: Signature | None = None
    func: Any = None
    rule: TangentRule | None = None
    reason: str = ""
    writes: tuple[int, ...] = ()
    reads: int = 0
    returns_written: bool = False

    def argument(self, values: Sequence[Any], name: str) -> Any:
        """Return the argument that the schema calls ``name`` among all arguments of a call."""
        return None if self.signature is None else values[self.signature.places[name]]


@cache
def kind_of(func: Any) -> OpKind:
    """Return what sort of operation this is."""
    name = str(func)
    # Without a kernel for autograd, as other people's operations may be, dual numbers would lose a tangent in silence.
    if not isinstance(func, torch._ops.OpOverload) or func.namespace != "aten":
        return OpKind(name, Signature.of(func), reason="is not an operation of torch itself")
    arguments, returns = func._schema.arguments, [r.alias_info for r in func._schema.returns]
    writes = tuple(i for i, a in enumerate(arguments) if a.alias_info and a.alias_info.is_write)
    plain = func._schema.name.removeprefix("aten::")
    makes_views = bool(returns) and all(alias is not None and not alias.is_write for alias in returns)
    if plain in _SHAPE_ONLY or (plain not in _MOVES_STORAGE and (torch.Tag.inplace_view in func.tags or makes_views)):
        return OpKind(name)
    rule, reason, functional = None, "", func if not writes else _functional(func, writes)
    if plain in _MOVES_STORAGE:
        reason = "moves or reinterprets a storage"
    elif functional is None:
        reason = "writes in place to several tensors, or in no known way"
    else:
        rule = RULES.get(str(functional)) or RULES.get(str(functional).rpartition(".")[0])
        if rule is None and torch.Tag.nondeterministic_seeded in func.tags:
            reason = "draws random numbers"
    return OpKind(
        name,
        Signature.of(func),
        func=functional,
        rule=None if reason else rule or GENERIC,
        reason=reason,
        writes=writes,
        reads=sum(not argument.is_out for argument in arguments),
        returns_written=any(alias is not None and alias.is_write for alias in returns),
    )


def _functional(func: Any, writes: tuple[int, ...]) -> Any:
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
