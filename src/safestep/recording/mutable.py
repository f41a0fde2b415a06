"""Things that change in place, kind by kind: what tells that one has changed, and what puts it back."""

from __future__ import annotations

import random
import types
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping, MutableSet
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

INTERNAL = frozenset(vars(nn.Module()))
"""What torch keeps on every module: flags, tables and hooks."""


@dataclass(frozen=True, slots=True)
class MutableKind:
    """A kind of thing.

    Attributes:
        holds: whether a thing is of this kind.
        mark: what tells whether it changed; it holds on to what it compares, so that no identity is used again.
        copy: what puts it back; None where nothing does.
        put_back: puts it back.
        sized: whether a copy costs memory worth thinking about.
    """

    holds: Callable[[Any], bool]
    mark: Callable[[Any], Any]
    copy: Callable[[Any], Any] | None
    put_back: Callable[[Any, Any], Any]
    sized: bool = False


def kind_of(thing: Any) -> MutableKind:
    """Return the kind of a thing; an object that is nothing else is its attributes."""
    return next(kind for kind in _KINDS if kind.holds(thing))


def same(one: Any, other: Any) -> bool:
    """Return whether two marks are of a thing that has not changed."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(other[key] is value for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))
    if isinstance(one, set):
        return {*map(id, one)} == {*map(id, other)}
    return bool(one == other)


def own_attributes(module: nn.Module) -> dict[str, Any]:
    """Return what a user keeps on a module."""
    return {key: value for key, value in vars(module).items() if key not in INTERNAL}


def attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an object, slots included."""
    slots = (name for kind in type(value).__mro__ for name in vars(kind).get("__slots__", ()) if isinstance(name, str))
    found = {name: getattr(value, name) for name in slots if hasattr(value, name) and name != "__dict__"}
    return found | dict(getattr(value, "__dict__", {}))


def is_array(thing: Any) -> bool:
    """Return whether a thing is a NumPy array."""
    return type(thing).__module__ == "numpy" and type(thing).__name__ == "ndarray"


def _bits(thing: Any) -> Any:
    """Return NumPy's source of random bits behind a generator of its."""
    return getattr(thing, "bit_generator", None) or getattr(thing, "_bit_generator", None)


def _moves_on(thing: Any) -> bool:
    iterators = isinstance(thing, types.GeneratorType) or type(thing).__module__ == "itertools"
    return iterators or hasattr(thing, "__length_hint__")


def _place(thing: Any) -> Any:
    """Return how far an iterator has come."""
    if isinstance(thing, types.GeneratorType):
        frame = thing.gi_frame
        return None if frame is None else (frame.f_lasti, repr(frame.f_locals))
    return thing.__length_hint__() if hasattr(thing, "__length_hint__") else repr(thing)


def _put_back_tensor(thing: Tensor, copy: Tensor) -> None:
    with torch.no_grad():
        thing.copy_(copy)


def _put_back_attributes(now: dict[str, Any], before: Mapping[str, Any], keys: set[str]) -> None:
    for key in keys - before.keys():
        del now[key]
    now.update(before)


def _put_back_object(thing: Any, copy: Mapping[str, Any]) -> None:
    for key in attributes(thing).keys() - copy.keys():
        object.__delattr__(thing, key)
    for key, value in copy.items():
        object.__setattr__(thing, key, value)


def _refill(thing: Any, copy: Any) -> None:
    thing.clear()
    (thing.extend if isinstance(thing, deque) else thing.update)(copy)


def _array_back(thing: Any, copy: Any) -> None:
    thing[...] = copy


def _slice_back(thing: Any, copy: Any) -> None:
    thing[:] = copy


_KINDS = (
    MutableKind(
        lambda t: isinstance(t, Tensor),
        lambda t: None if t.is_inference() else t._version,
        lambda t: t.detach().clone(),
        _put_back_tensor,
        sized=True,
    ),
    MutableKind(
        lambda t: isinstance(t, nn.Module),
        own_attributes,
        own_attributes,
        lambda t, copy: _put_back_attributes(vars(t), copy, set(own_attributes(t))),
    ),
    MutableKind(
        lambda t: isinstance(t, torch.Generator),
        lambda t: t.get_state(),
        lambda t: t.get_state(),
        torch.Generator.set_state,
    ),
    MutableKind(
        lambda t: isinstance(t, random.Random), lambda t: t.getstate(), lambda t: t.getstate(), random.Random.setstate
    ),
    MutableKind(is_array, lambda t: t.tobytes(), lambda t: t.copy(), _array_back, sized=True),
    MutableKind(
        lambda t: type(t).__module__.startswith("numpy.random") and _bits(t) is not None,
        lambda t: repr(_bits(t).state),
        lambda t: _bits(t).state,
        lambda t, copy: setattr(_bits(t), "state", copy),
    ),
    MutableKind(lambda t: isinstance(t, bytearray), bytes, bytes, _slice_back),
    MutableKind(lambda t: isinstance(t, list), list, list, _slice_back),
    MutableKind(lambda t: isinstance(t, deque), list, list, _refill),
    MutableKind(lambda t: isinstance(t, MutableMapping), dict, dict, _refill),
    MutableKind(lambda t: isinstance(t, MutableSet), set, set, _refill),
    MutableKind(_moves_on, _place, None, _slice_back),
    MutableKind(lambda _: True, attributes, attributes, _put_back_object),
)
