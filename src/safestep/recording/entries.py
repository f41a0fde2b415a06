"""What a forward may change, kept before it runs (`Entries`), and the `Forward` that is recorded after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from safestep._torch.rng import GeneratorStates
from safestep.distributed.dtensor import is_sharded, piece
from safestep.distributed.fsdp import computes_lower
from safestep.heads.output import Output
from safestep.heads.places import tensors_in
from safestep.recording.forward import Forward, Input
from safestep.recording.module_state import Snapshot, reachable
from safestep.tape import Tape

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a forward may change, as it was before it.

    Attributes:
        given: its arguments; containers copied, tensors by reference.
        spare: the same with the tensors copied too; None where forwards are known to leave their inputs alone.
        inputs: the input tensors as they were.
        generators: the random generators.
        versions: identity and version counter of every buffer.
        copies: the buffers that forwards are known to change.
        state: whatever else a forward may change, or is known to.
        frozen: the parameters that no optimizer moves, as they were, where forwards are looked at closely.
        place: see `Forward.place`.
    """

    given: Arguments
    spare: Arguments | None
    inputs: tuple[Input, ...]
    generators: GeneratorStates
    versions: dict[str, tuple[int, int]]
    copies: dict[str, Tensor]
    state: Snapshot
    place: int
    frozen: dict[str, Input] = field(default_factory=dict)


class Entries:
    """Looks at the model before and after its forwards, and copies no more than they are known to change."""

    def __init__(self) -> None:
        self.overwrites: bool | None = None  # whether forwards write to their inputs; unknown before the first
        self.volatile: set[str] | None = None  # buffers that forwards change; unknown before the first
        self.changing: set[str] | None = None  # names of other things that they change, likewise
        self.written: set[str] = set()  # frozen parameters that they write to, as a replay would
        self.count = 0

    def as_state(self) -> dict[str, Any]:
        """Return what was learnt, for a checkpoint."""
        volatile, changing = (None if names is None else sorted(names) for names in (self.volatile, self.changing))
        known = {"overwrites": self.overwrites, "volatile": volatile, "changing": changing, "count": self.count}
        return {**known, "written": sorted(self.written)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Entries:
        """Go on from `as_state`; from an empty one as if nothing had been learnt."""
        known, volatile, changing = cls(), state.get("volatile"), state.get("changing")
        known.overwrites, known.count = state.get("overwrites"), state.get("count", 0)
        known.volatile = None if volatile is None else set(volatile)
        known.changing = None if changing is None else set(changing)
        known.written = set(state.get("written", ()))
        return known

    def before(self, model: nn.Module, given: Arguments, place: int) -> Entry:
        """Return what a forward that begins may change."""
        buffers = _buffers(model.named_modules())
        kept = buffers.keys() if self.volatile is None else self.volatile & buffers.keys()
        return Entry(
            _copied(given, tensors=False),
            None if self.overwrites is False else _copied(given, tensors=True),
            tuple(Input.of(t) for t in tensors_in(given) if not t.is_inference()),
            GeneratorStates.capture(),
            _versions(buffers),
            {name: buffers[name].detach().clone() for name in kept},
            self._state(model),
            place,
            self._frozen(model),
        )

    def _frozen(self, model: nn.Module) -> dict[str, Input]:
        """Look at frozen parameters at the first forward and every power of two: momentum encoders write to their own.

        A replay runs at copies of those that move, and at these themselves.
        """
        if self.count & (self.count - 1):
            return {}
        frozen = ((name, p) for name, p in model.named_parameters() if not (p.requires_grad or p.is_inference()))
        # the parameter itself, not a view of it: `.data = ...` leaves the old memory as it was
        return {name: Input.of(piece(p) if is_sharded(p) else p) for name, p in frozen}

    def _state(self, model: nn.Module) -> Snapshot:
        """Keep all that can change at the first forward and at every power of two, and what does at the others."""
        self.count += 1
        if self.changing is None:
            return Snapshot(reachable(model))
        if self.count & (self.count - 1) == 0:
            return Snapshot(reachable(model), lambda node: node.name in (self.changing or ()))
        return (
            Snapshot(node for node in reachable(model) if node.name in self.changing) if self.changing else Snapshot()
        )

    def after(self, model: nn.Module, entry: Entry, outputs: list[Output], device: str, tape: Tape | None) -> Forward:
        """Return the record of a forward that is over, with its outputs."""
        modules = list(model.named_modules())  # one walk: of small models they are what a forward costs
        after = _versions(_buffers(modules))
        changed = {name for name, version in after.items() if entry.versions.get(name) != version}
        self.volatile = changed | (self.volatile or set())
        self.changing = {node.name for node in entry.state.changed()} | (self.changing or set())
        self.written |= {name for name, one in entry.frozen.items() if one.overwritten}
        overwritten = any(one.overwritten for one in entry.inputs)
        self.overwrites = overwritten or bool(self.overwrites)
        spare = entry.spare if overwritten else None
        args, kwargs = entry.given if spare is None else spare
        return Forward(
            args,
            kwargs,
            entry.inputs if spare is None else (),
            tuple(module.training for _, module in modules),
            {name: copy for name, copy in entry.copies.items() if name in self.volatile},
            entry.state.only(self.changing),
            entry.generators,
            _autocast_in_force(device),
            outputs,
            unrepeatable=(*entry.state.opaque(), *sorted(self.written)),
            tape=tape,
            place=entry.place,
            rounded=computes_lower(model),
        )


def _copied(value: Any, *, tensors: bool) -> Any:
    """Copy plain containers, and on request the tensors in them: what becomes of them later is not on record."""
    if isinstance(value, Tensor):
        return value.detach().clone() if tensors else value
    if type(value) in (tuple, list):
        return type(value)(_copied(item, tensors=tensors) for item in value)
    return {key: _copied(item, tensors=tensors) for key, item in value.items()} if type(value) is dict else value


def _buffers(modules: Iterable[tuple[str, nn.Module]]) -> dict[str, Tensor]:
    """Return the buffers by name, as `torch.nn.Module.named_buffers` does: each once."""
    found: dict[Tensor, str] = {}
    for name, module in modules:
        for key, buffer in module.named_buffers(name, recurse=False):
            found.setdefault(buffer, key)
    return {name: buffer for buffer, name in found.items()}


def _versions(buffers: dict[str, Tensor]) -> dict[str, tuple[int, int]]:
    return {name: (id(buffer), buffer._version) for name, buffer in buffers.items() if not buffer.is_inference()}


def _autocast_in_force(device_type: str) -> dict[str, torch.dtype]:
    return {kind: torch.get_autocast_dtype(kind) for kind in {device_type, "cpu"} if torch.is_autocast_enabled(kind)}
