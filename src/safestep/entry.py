"""What a forward may change, as it was before it; and the record of the forward once it is over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from safestep.forward import Forward
from safestep.gathering import computes_lower
from safestep.logits import tensors_in
from safestep.pieces import whole
from safestep.rng import GeneratorStates
from safestep.tape import Tape

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a forward may change, as it was before it.

    Attributes:
        given: its arguments; containers copied, tensors by reference.
        spare: the same with the tensors copied too; None where forwards are known to leave their inputs alone.
        inputs: the input tensors with their version counters.
        generators: the random generators.
        versions: identity and version counter of every buffer.
        copies: the buffers that forwards are known to change.
        place: see `Forward.place`.
    """

    given: Arguments
    spare: Arguments | None
    inputs: tuple[tuple[Tensor, int], ...]
    generators: GeneratorStates
    versions: dict[str, tuple[int, int]]
    copies: dict[str, Tensor]
    place: int


class Entries:
    """Looks at the model before and after its forwards, and copies no more than they are known to change."""

    def __init__(self) -> None:
        self.overwrites: bool | None = None  # whether forwards write to their inputs; unknown before the first
        self.volatile: set[str] | None = None  # buffers that forwards change; unknown before the first

    def before(self, model: nn.Module, given: Arguments, place: int) -> Entry:
        """Return what a forward that begins may change."""
        buffers = dict(model.named_buffers())
        kept = buffers.keys() if self.volatile is None else self.volatile & buffers.keys()
        return Entry(
            _copied(given, tensors=False),
            None if self.overwrites is False else _copied(given, tensors=True),
            tuple((t, t._version) for t in tensors_in(given) if not t.is_inference()),
            GeneratorStates.capture(),
            _versions(buffers),
            {name: buffers[name].detach().clone() for name in kept},
            place,
        )

    def after(self, model: nn.Module, entry: Entry, logits: Tensor, tape: Tape | None, *, keep: bool) -> Forward:
        """Return the record of a forward that is over, with its logits if they are to be kept."""
        after = _versions(dict(model.named_buffers()))
        changed = {name for name, version in after.items() if entry.versions.get(name) != version}
        self.volatile = changed | (self.volatile or set())
        overwritten = any(tensor._version != version for tensor, version in entry.inputs)
        self.overwrites = overwritten or bool(self.overwrites)
        spare = entry.spare if overwritten else None
        args, kwargs = entry.given if spare is None else spare
        return Forward(
            args,
            kwargs,
            entry.inputs if spare is None else (),
            tuple(m.training for m in model.modules()),
            {name: copy for name, copy in entry.copies.items() if name in self.volatile},
            entry.generators,
            _autocast_in_force(logits.device.type),
            whole(logits.amax(-1)),
            logits=logits if keep else None,
            version=logits._version,
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


def _versions(buffers: dict[str, Tensor]) -> dict[str, tuple[int, int]]:
    return {name: (id(buffer), buffer._version) for name, buffer in buffers.items() if not buffer.is_inference()}


def _autocast_in_force(device_type: str) -> dict[str, torch.dtype]:
    return {kind: torch.get_autocast_dtype(kind) for kind in {device_type, "cpu"} if torch.is_autocast_enabled(kind)}
