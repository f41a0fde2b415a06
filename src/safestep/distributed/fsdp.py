"""Run an FSDP2 model at other parameters: those of each unit are gathered while it runs, and no longer."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import MethodType
from typing import Any, NamedTuple

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
    gradients: list[Tensor | None] = []
    for unit in map(_any, units_of(model)):
        for group in _groups(unit._get_fsdp_state()):
            for parameter in group.fsdp_params:
                added, whole = parameter.unsharded_accumulated_grad, getattr(parameter, "_unsharded_param", None)
                gradients.append(added if added is not None or whole is None else whole.grad)
    return [gradient for gradient in gradients if gradient is not None]


def _groups(state: Any) -> list[Any]:
    if hasattr(state, "_fsdp_param_groups"):
        return list(state._fsdp_param_groups)
    return [] if state._fsdp_param_group is None else [state._fsdp_param_group]  # of an older release of torch


class _Place(NamedTuple):
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

    def end(_: object, error: BaseException | None, __: object) -> None:
        # After a forward that raised half way, units take it to be still running, and what they have gathered for up
        # to date. Only the outermost resets, itself and the others; older releases of torch have no such method.
        for unit in map(_any, units if error is not None else ()):
            with contextlib.suppress(RuntimeError, AttributeError):
                unit.reset_iter_state()
        _reshard(units)

    with contextlib.ExitStack() as stack:
        stack.push(end)
        for unit in units:
            exchange, give_back = _exchange(_places(unit, units, names), at)
            # after FSDP's own hook has gathered, and before its own lets go
            stack.callback(unit.register_forward_pre_hook(exchange).remove)
            stack.callback(unit.register_forward_hook(give_back, prepend=True, always_call=True).remove)
            stack.callback(give_back)
            for name, method in _registered(unit):
                stack.callback(setattr, unit, name, method)
                setattr(unit, name, partial(_call_as_forward, unit, method.__wrapped__))
        yield


def _places(unit: nn.Module, units: list[nn.Module], names: dict[Tensor, str]) -> list[_Place]:
    """Return where the parameters that a unit gathers itself are registered; ties have several places."""
    places, queue = [], [unit]
    while queue:
        module = queue.pop()
        places += [
            _Place(module, key, names[p]) for key, p in module._parameters.items() if p is not None and p in names
        ]
        queue += [child for child in module.children() if not any(child is other for other in units)]
    return places


def _exchange(places: list[_Place], at: At) -> tuple[Callable[..., None], Callable[..., None]]:
    """Return a hook that puts other parameters in place of those a unit has gathered, and one that puts these back."""
    gathered_ones: list[tuple[_Place, Any]] = []

    def exchange(*_: Any) -> None:
        values: dict[str, Any] = {}
        for place in places:
            present: Any = place.module._parameters[place.key]
            if place.name not in values:
                values[place.name] = at(place.name, present)
            if values[place.name] is not None:
                gathered_ones.append((place, present))
                place.module._parameters[place.key] = values[place.name]

    def give_back(*_: Any) -> None:
        for place, present in reversed(gathered_ones):
            place.module._parameters[place.key] = present
        gathered_ones.clear()

    return exchange, give_back


def _registered(unit: nn.Module) -> list[tuple[str, Any]]:
    """Return the methods that ``register_fsdp_forward_method`` lets gather: no hook of a module runs in them."""
    methods = ((name, value) for name, value in vars(unit).items() if isinstance(value, MethodType))
    return [(n, m) for n, m in methods if m.__func__.__globals__.get("__name__", "").startswith(_FSDP)]


def _call_as_forward(unit: nn.Module, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run such a method as the unit's forward for once, and with it the hooks."""
    attributes = vars(unit)
    own = {"forward": attributes["forward"]} if "forward" in attributes else {}

    def forward(*args: Any, **kwargs: Any) -> Any:
        put_back()  # the method may call the unit's own forward
        return method(*args, **kwargs)

    def put_back() -> None:
        if attributes.get("forward") is forward:
            del attributes["forward"]
            attributes.update(own)

    attributes["forward"] = forward
    try:
        return unit(*args, **kwargs)
    finally:
        put_back()


def reshard(model: nn.Module) -> None:
    """Let go of what units have gathered: after an evaluation the root holds on to it, and names are of the pieces."""
    _reshard(units_of(model))


def _reshard(units: list[nn.Module]) -> None:
    for unit in map(_any, units):
        unit.reshard()


def _any(module: Any) -> Any:
    return module  # FSDP2 adds its methods to the class of the user's module
