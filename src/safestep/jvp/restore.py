"""Restores a model after a trial (suggest_lr, diagnostics, HessianRadius); replays have no_trace in `replay`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from safestep._torch.rng import preserved_generators
from safestep.recording.module_state import Snapshot, reachable
from safestep.recording.step import Parameters

_TABLES = ("_parameters", "_buffers", "_modules")
"""Where a module keeps what it registers: dicts that change in place."""


@contextmanager
def untouched(model: nn.Module, parameters: Iterable[Tensor]) -> Iterator[Parameters]:
    """Leave a model, the given parameters and every generator bit for bit as they were, whatever happens inside.

    Inside, every ``.grad`` starts as None; afterwards each is the very tensor that it was. Beyond it is whatever does
    not belong to the model, and an iterator that moves on.

    Args:
        model: its parameters, buffers, flags, attributes and what these hold are restored.
        parameters: of the optimizers, the model's or not.

    Yields:
        A copy of each parameter that may move: those that require a gradient.
    """
    everything = dict.fromkeys([*model.parameters(), *parameters])
    start = {p: p.detach().clone() for p in everything if p.requires_grad}
    gradients = [(p, p.requires_grad, p.grad) for p in everything]
    modules, held = [_Module.of(module) for module in model.modules()], Snapshot(reachable(model))
    for parameter in everything:
        parameter.grad = None
    with ExitStack() as stack:
        for parameter, required, gradient in gradients:
            stack.callback(_restore, parameter, required, gradient, start.get(parameter))
        for kept in modules:
            stack.callback(kept.restore)
        stack.callback(held.restore)
        stack.enter_context(preserved_generators())
        yield start


@torch.no_grad()
def _restore(parameter: Tensor, required: bool, gradient: Tensor | None, start: Tensor | None) -> None:
    if start is not None:
        parameter.copy_(start)
    parameter.requires_grad_(required)
    parameter.grad = gradient


@dataclass(frozen=True, slots=True)
class _Module:
    """A module as it was: its attributes by reference, its buffers by value."""

    module: nn.Module
    attributes: dict[str, Any]
    tables: dict[str, dict[str, Any]]
    buffers: list[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, module: nn.Module) -> _Module:
        attributes = dict(vars(module))
        return cls(
            module,
            attributes,
            {name: dict(attributes[name]) for name in _TABLES},
            [(buffer, buffer.detach().clone()) for buffer in module.buffers(recurse=False)],
        )

    @torch.no_grad()
    def restore(self) -> None:
        _reset(vars(self.module), self.attributes)
        for name, table in self.tables.items():
            _reset(self.attributes[name], table)
        for buffer, copy in self.buffers:
            buffer.copy_(copy)


def _reset(now: dict[str, Any], before: dict[str, Any]) -> None:
    for name in now.keys() - before.keys():
        del now[name]
    now.update(before)
