"""The registry of rules by operation: the tangent of the results from the tangents of the arguments."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

import torch

from safestep.tape.signature import Signature

Get = Callable[[str], Any]
"""From the name of an argument in an operation's schema to its value."""

Tangents = Any
"""A tensor, None for zero, or a sequence of such where a rule differentiates several results. (A union in fact, but
operations of torch are not typed.)"""


@dataclass(eq=False, slots=True)
class Call:
    """One recorded operation, as its rule sees it. Arguments are in the order of its schema, defaults included.

    Attributes:
        func: the operation, without side effects.
        slots: the arguments as recorded, slots in the place of tensors.
        args: the arguments at the values of the forward; None where the rule asked for none.
        dots: the tangent of every argument, in its shape; None is zero (or no tensor). A list for a list.
        results: the results that the rule asked for, None in place of the others.
        spent: places of arguments whose tangent nobody reads after this call, so that the rule may write over it.
        shape: size of the (first) result.
        dtype: of the (first) result.
    """

    func: Any
    slots: list[Any]
    args: list[Any]
    dots: list[Any]
    results: list[Any]
    spent: Container[int]
    shape: tuple[int, ...]
    dtype: torch.dtype

    def __getitem__(self, name: str) -> Any:
        """Return an argument by its name in the operation's schema."""
        return self.args[Signature.of(self.func).places[name]]

    def run(self, arguments: list[Any]) -> Any:
        """Run the operation on other arguments."""
        return Signature.of(self.func).call(self.func, arguments)


Keeps = Callable[[int, Container[int]], bool]
"""Whether a rule needs the value of the argument at a place, given the places of those that have a tangent."""


def everything(place: int, active: Container[int]) -> bool:
    """Keep every argument."""
    return True


def passive(place: int, active: Container[int]) -> bool:
    """Keep the arguments that have no tangent, such as indices and masks: the operation is linear in the others."""
    return place not in active


def only(*places: int) -> Keeps:
    """Keep these arguments."""
    return lambda place, active: place in places


def factors(*places: int) -> Keeps:
    """Keep each of these arguments if another of them has a tangent: the operation is a product of them."""
    return lambda place, active: place in places and any(other in active for other in places if other != place)


@dataclass(frozen=True, slots=True)
class TangentRule:
    """How the tangents of an operation's results follow from those of its arguments.

    Attributes:
        formula: the tangents of the results.
        keeps: which arguments the formula needs the value of.
        results: which results it needs the value of.
        outputs: how many of the results it differentiates, from the first; None for all.
        unread: places of arguments that the results do not depend on, such as running statistics in training. The
            operation writes to them, and the rule does not differentiate that.
        refuses: why a call cannot be differentiated by this rule; an empty text if it can.
        quantises: whether the formula goes straight through a staircase.
    """

    formula: Callable[[Call], Tangents]
    keeps: Keeps = everything
    results: tuple[int, ...] = ()
    outputs: int | None = 1
    unread: Callable[[Get], tuple[int, ...]] = lambda get: ()
    refuses: Callable[[Get], str] = lambda get: ""
    quantises: bool = False


RULES: dict[str, TangentRule] = {}
"""The rules, by an operation's name (``aten.mul`` for all its overloads, ``aten.mul.Tensor`` for one)."""


def rule(*names: str, **options: Any) -> Callable[[Callable[[Call], Tangents]], Callable[[Call], Tangents]]:
    """Enter a formula as the rule of the named operations of aten. Options as in `Rule`.

    Names rather than operations, since not every release of torch has them all.
    """

    def enter(formula: Callable[[Call], Tangents]) -> Callable[[Call], Tangents]:
        RULES.update({f"aten.{name}": TangentRule(formula, **options) for name in names})
        return formula

    return enter
