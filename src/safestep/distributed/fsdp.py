"""Run an FSDP2 model at other parameters: those of each unit are gathered while it runs, and no longer."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, distributed, nn

_FSDP = "torch.distributed.fsdp"

At = Callable[[str, Tensor], Tensor | None]
"""From the name of a parameter, and what its unit has gathered, to its value for this run; None keeps that."""


def units_of(model: nn.Module) -> list[nn.Module]:
    """Return the modules that ``fully_shard`` was called on: each gathers its parameters while it runs."""
    module = sys.modules.get(_FSDP) if distributed.is_available() and distributed.is_initialized() else None
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


def held_back(model: nn.Module) -> list[Tensor]:
    """Return the gradients that units keep to themselves until they synchronise (``set_requires_gradient_sync``)."""
    states = (unit._get_fsdp_state() for unit in map(_any, units_of(model)))
    groups = (group for state in states for group in _groups(state))
    parameters = (parameter for group in groups for parameter in group.fsdp_params)
    pairs = ((p.unsharded_accumulated_grad, getattr(p, "_unsharded_param", None)) for p in parameters)
    gradients = (added if added is not None or whole is None else whole.grad for added, whole in pairs)
    return [gradient for gradient in gradients if gradient is not None]


def _groups(state: Any) -> list[Any]:
    if hasattr(state, "_fsdp_param_groups"):
        return list(state._fsdp_param_groups)
    return [] if state._fsdp_param_group is None else [state._fsdp_param_group]  # of an older release of torch


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
        stack.push(_Ending(units))
        for unit in units:
            taken: list[tuple[_Place, Tensor]] = []
            before, after = _Exchange(_places(unit, units, names), at, taken), _GiveBack(taken)
            # after FSDP's own hook has gathered, and before its own lets go
            stack.callback(unit.register_forward_pre_hook(before).remove)
            stack.callback(unit.register_forward_hook(after, prepend=True, always_call=True).remove)
            stack.callback(after)
            for name, method in _registered(unit):
                stack.callback(setattr, unit, name, method)
                setattr(unit, name, _Call(unit, method.__wrapped__))
        yield


def _registered(unit: nn.Module) -> list[tuple[str, Any]]:
    """Return the methods that ``register_fsdp_forward_method`` lets gather: no hook of a module runs in them."""
    made = ((name, value) for name, value in vars(unit).items() if isinstance(value, MethodType))
    return [(n, m) for n, m in made if m.__func__.__globals__.get("__name__", "").startswith(_FSDP)]


class _Call:
    """Runs such a method as the unit's forward for once, and with it the hooks."""

    def __init__(self, unit: nn.Module, method: Callable[..., Any]) -> None:
        self._unit, self._method = unit, method

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        attributes = vars(self._unit)
        own = {"forward": attributes["forward"]} if "forward" in attributes else {}

        def forward(*args: Any, **kwargs: Any) -> Any:
            give_back()  # the method may call the unit's own forward
            return self._method(*args, **kwargs)

        def give_back() -> None:
            if attributes.get("forward") is forward:
                del attributes["forward"]
                attributes.update(own)

        attributes["forward"] = forward
        try:
            return self._unit(*args, **kwargs)
        finally:
            give_back()


class _Ending:
    """Shards a model again, though a forward may have raised half way."""

    def __init__(self, units: list[nn.Module]) -> None:
        self._units = units

    def __call__(self, _: object, error: BaseException | None, __: object) -> None:
        for unit in map(_any, self._units if error is not None else ()):
            # else its units take that forward to be still running, and what they have gathered for up to date
            # of units only the outermost resets, itself and the others; older releases of torch have no such method
            with contextlib.suppress(RuntimeError, AttributeError):
                unit.reset_iter_state()
        _reshard(self._units)


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
        for place, present in reversed(self._taken):
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
