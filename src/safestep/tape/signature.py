"""The arguments of an operation of torch in one list, in the order of its schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True, slots=True)
class Signature:
    """How an operation is called: by position first, then by keyword alone.

    Attributes:
        names: of the arguments.
        places: the index of each name.
        defaults: of the arguments; None where there is none.
        positional: how many can be passed by position.
    """

    names: tuple[str, ...]
    places: Mapping[str, int]
    defaults: tuple[Any, ...]
    positional: int

    @staticmethod
    @cache
    def of(func: Any) -> Signature:
        """Return the signature of an operation."""
        arguments = func._schema.arguments if hasattr(func, "_schema") else ()  # operators of a higher order have none
        names = tuple(a.name for a in arguments)
        defaults = tuple(a.default_value if a.has_default_value() else None for a in arguments)
        return Signature(names, {n: i for i, n in enumerate(names)}, defaults, sum(not a.kwarg_only for a in arguments))

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """Return all arguments of a call, defaults included."""
        bound = [*args, *self.defaults[len(args) :]]
        for name, value in kwargs.items():
            if name in self.places:
                bound[self.places[name]] = value
            else:
                bound.append(value)
        return bound

    def call(self, func: Any, arguments: Sequence[Any]) -> Any:
        """Call the operation with what `bind` returned."""
        named = zip(self.names[self.positional :], arguments[self.positional :], strict=True)
        return func(*arguments[: self.positional], **dict(named))
