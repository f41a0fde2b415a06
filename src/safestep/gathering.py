"""Run an FSDP2 model at other parameters: those of each unit are gathered while it runs, and no longer."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_FSDP = "torch.distributed.fsdp"

At = Callable[[str, Tensor], Tensor | None]
"""From the name of a parameter, and what its unit has gathered, to its value for this run; None keeps that."""


def units_of(model: nn.Module) -> list[nn.Module]:
    """Return the modules that ``fully_shard`` was called on: each gathers its parameters while it runs."""
    module = sys.modules.get(_FSDP)
    return [] if module is None else [m for m in model.modules() if isinstance(m, module.FSDPModule)]


def names_in_units(model: nn.Module) -> set[str]:
    """Return the names of the parameters that some unit gathers; the others stay as they are."""
    inside = {id(parameter) for unit in units_of(model) for parameter in unit.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in inside} if inside else set()


def computes_lower(model: nn.Module) -> bool:
    """Return whether a unit casts its parameters to a lower precision before it runs."""
    states = (unit._get_fsdp_state() for unit in map(_any, units_of(model)))
    types = (getattr(getattr(state, "_mp_policy", None), "param_dtype", None) for state in states)
    return any(dtype not in {None, torch.float32, torch.float64} for dtype in types)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a unit's own parameter is registered.

    Attributes:
        module: the module that holds it.
        key: its name there.
        name: its name in the whole model.
    """

    module: nn.Module
    key: str
    name: str


@contextlib.contextmanager
def gathered(model: nn.Module, at: At) -> Iterator[None]:
    """Inside, every unit of the model runs with other parameters; afterwards the model is sharded, as before a step.

    The unit's own hooks run too and gather the present parameters; what is put in their place lives until the unit has
    run. At most one unit's parameters are whole at a time, unless units are nested.

    Args:
        model: a model with units.
        at: says what to put in their place; it is called by every rank for the same names in the same order.
    """
    units = units_of(model)
    _reshard(units)
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    with contextlib.ExitStack() as stack:
        stack.callback(_reshard, units)
        for unit in units:
            taken: list[tuple[_Place, Tensor]] = []
            before, after = _Exchange(_places(unit, units, names), at, taken), _GiveBack(taken)
            # after FSDP's own hook has gathered, and before its own lets go
            stack.callback(unit.register_forward_pre_hook(before).remove)
            stack.callback(unit.register_forward_hook(after, prepend=True, always_call=True).remove)
            stack.callback(after)
        yield


def _places(unit: nn.Module, units: list[nn.Module], names: dict[Tensor, str]) -> list[_Place]:
    """Return where the parameters that a unit gathers itself are registered; ties have several places."""
    found, queue = [], [unit]
    while queue:
        module = queue.pop()
        found += [
            _Place(module, key, names[p]) for key, p in module._parameters.items() if p is not None and p in names
        ]
        queue += [child for child in module.children() if not any(child is other for other in units)]
    return found


class _Exchange:
    """Puts other parameters in place of those that a unit has gathered."""

    def __init__(self, places: list[_Place], at: At, taken: list[tuple[_Place, Tensor]]) -> None:
        self._places, self._at, self._taken = places, at, taken

    def __call__(self, *_: Any) -> None:
        known: dict[str, Tensor | None] = {}
        for place in self._places:
            present: Any = place.module._parameters[place.key]
            if place.name not in known:
                known[place.name] = self._at(place.name, present)
            value: Any = known[place.name]
            if value is not None:
                self._taken.append((place, present))
                place.module._parameters[place.key] = value


class _GiveBack:
    """Puts back what a unit has gathered, for it to let go."""

    def __init__(self, taken: list[tuple[_Place, Tensor]]) -> None:
        self._taken = taken

    def __call__(self, *_: Any) -> None:
        for place, present in self._taken:
            held: Any = present
            place.module._parameters[place.key] = held
        self._taken.clear()


def reshard(model: nn.Module) -> None:
    """Let go of what units have gathered: after an evaluation the root holds on to it, and names are of the pieces."""
    _reshard(units_of(model))


def _reshard(units: list[nn.Module]) -> None:
    for unit in map(_any, units):
        unit.reshard()


def _any(module: Any) -> Any:
    return module  # FSDP2 adds its methods to the class of the user's module
