"""The registry of rules by operation: the tangent of the results from the tangents of the arguments."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

Position = int | str
"""An argument of an operation: its index, or its keyword."""

Get = Callable[[str], Any]
"""From the name of an argument in an operation's schema to its value."""

Tangents = Any
"""A tensor, None for zero, or a sequence of such where a rule differentiates several results. (A union in fact, but
operations of torch are not typed.)"""


@dataclass(eq=False, slots=True)
class Call:
    """One recorded operation, as its rule sees it.

    Attributes:
        func: the operation, without side effects.
        slots: the arguments as recorded, slots in the place of tensors.
        args: positional arguments at the values of the forward; None where the rule asked for none.
        kwargs: keyword arguments, likewise.
        dots: the tangent of every positional argument, in its shape; None is zero (or no tensor). A list for a list.
        named: the tangents of keyword arguments, where there are any.
        results: the results that the rule asked for, None in place of the others.
        spent: arguments whose tangent nobody reads after this call, so that the rule may write over it.
        shape: size of the (first) result.
        dtype: of the (first) result.
    """

    func: Any
    slots: list[Any]
    args: list[Any]
    kwargs: dict[str, Any]
    dots: list[Any]
    named: dict[str, Any]
    results: list[Tensor | None]
    spent: Container[Position]
    shape: tuple[int, ...]
    dtype: torch.dtype

    def __getitem__(self, name: str) -> Any:
        """Return an argument by its name in the operation's schema, defaults included."""
        return argument(self.func, self.args, self.kwargs, name)

    def result(self, index: int = 0) -> Tensor:
        """Return a result of the forward that the rule asked for."""
        result = self.results[index]
        if result is None:
            raise IndexError(f"the rule of {self.func} did not ask for result {index}")
        return result


Keeps = Callable[[Container[Position]], Container[Position]]
"""From the arguments with a tangent to those whose value the rule needs."""


class _All:
    def __contains__(self, position: object) -> bool:
        return True


class _Without:
    def __init__(self, positions: Container[Position]) -> None:
        self.positions = positions

    def __contains__(self, position: object) -> bool:
        return position not in self.positions


def everything(active: Container[Position]) -> Container[Position]:
    """Keep every argument."""
    return _All()


def passive(active: Container[Position]) -> Container[Position]:
    """Keep the arguments that have no tangent, such as indices and masks: the operation is linear in the others."""
    return _Without(active)


def only(*positions: Position) -> Keeps:
    """Keep these arguments."""
    return lambda active: positions


def factors(*positions: int) -> Keeps:
    """Keep each of these arguments if another of them has a tangent: the operation is a product of them."""
    return lambda active: [p for p in positions if any(q in active for q in positions if q != p)]


@dataclass(frozen=True, slots=True)
class Rule:
    """How the tangents of an operation's results follow from those of its arguments.

    Attributes:
        formula: the tangents of the results.
        keeps: which arguments the formula needs the value of.
        results: which results it needs the value of.
        outputs: how many of the results it differentiates, from the first; None for all.
        unread: arguments that the results do not depend on, such as running statistics in training.
        spoiled: arguments that the operation overwrites and the rule does not differentiate.
        refuses: why a call cannot be differentiated by this rule; an empty text if it can.
        quantises: whether the formula goes straight through a staircase.
    """

    formula: Callable[[Call], Tangents]
    keeps: Keeps = everything
    results: tuple[int, ...] = ()
    outputs: int | None = 1
    unread: Callable[[Get], tuple[int, ...]] | None = None
    spoiled: Callable[[Get], tuple[int, ...]] | None = None
    refuses: Callable[[Get], str] | None = None
    quantises: bool = False


RULES: dict[str, Rule] = {}
"""The rules, by an operation's name (``aten.mul`` for all its overloads, ``aten.mul.Tensor`` for one)."""


def rule(*names: str, **options: Any) -> Callable[[Callable[[Call], Tangents]], Callable[[Call], Tangents]]:
    """Enter a formula as the rule of the named operations of aten. Options as in `Rule`.

    Names rather than operations, since not every release of torch has them all.
    """

    def enter(formula: Callable[[Call], Tangents]) -> Callable[[Call], Tangents]:
        RULES.update({f"aten.{name}": Rule(formula, **options) for name in names})
        return formula

    return enter


def argument(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], name: str) -> Any:
    """Return the argument that an operation's schema calls ``name``, the default if it was not given."""
    if name in kwargs:
        return kwargs[name]
    position, default = _schema(func)[name]
    return args[position] if position < len(args) else default


@cache
def _schema(func: Any) -> dict[str, tuple[int, Any]]:
    arguments = func._schema.arguments
    return {a.name: (i, a.default_value if a.has_default_value() else None) for i, a in enumerate(arguments)}
