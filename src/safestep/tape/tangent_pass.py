"""Carries tangents through the recorded operations; the model itself is not run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from safestep.errors import TapeError
from safestep.tape.op import Op
from safestep.tape.rules import Call
from safestep.tape.slots import Slot, layout

Parameters = Mapping[int, Sequence[tuple[Tensor, Slot]]]
"""The parameters in each storage that holds any, with where they lie in it."""


class TangentPass:
    """One pass of tangents over recorded operations.

    The tangent of a tensor is the same view of the *mirror* of its storage as the tensor is of the storage. A storage
    without a mirror has tangent zero.

    Args:
        ops: the operations, in the order of the forward.
        parameters: where the parameters lie.
        start: parameters as they were in the forward.
        direction: from a parameter to its displacement.
    """

    def __init__(
        self,
        ops: Sequence[Op],
        parameters: Parameters,
        start: Mapping[Tensor, Tensor],
        direction: Callable[[Tensor], Tensor],
    ) -> None:
        self._ops, self._parameters, self._start, self._direction = ops, parameters, start, direction
        self._mirrors: dict[int, Tensor] = {}
        self._asked: set[int] = set()  # storages of parameters whose direction has been asked for
        self._starts: dict[int, Tensor] = {}

    def run(self, outputs: Sequence[Slot]) -> list[Tensor]:
        """Return the tangents of the tensors in some slots."""
        with torch.no_grad(), _no_autocast(outputs[0].device.type):
            for op in self._ops:
                self._advance(op)
                for cell in op.last:
                    self._mirrors.pop(cell, None)
                    self._starts.pop(cell, None)
            return [self._result(slot) for slot in outputs]

    def _result(self, slot: Slot) -> Tensor:
        tangent: Tensor | None = self._dot(slot)
        if tangent is None:
            return slot.zeros()
        return tangent.clone() if slot.cell in self._parameters else tangent

    def _advance(self, op: Op) -> None:
        """Compute the tangents of the results of an operation, and write them into the mirrors."""
        rule = op.kind.rule
        if rule is None:
            raise TapeError(f"{op.kind.name} cannot be differentiated: {op.reason}")
        dots = [self._dot(value) for value in op.args]
        tangents: Sequence[Tensor | None] = [None] * len(op.results)
        if any(dot is not None for group in dots for dot in (group if isinstance(group, list) else [group])):
            first = next(slot for slot in op.results if slot is not None)
            args, results = ([self._value(op, one) for one in slots] for slots in (op.args, op.values))
            size, _, _, dtype = first.layout
            out = rule.formula(Call(op.kind.func, op.args, args, dots, results, op.spent, size, dtype))
            tangents = [out] if out is None or isinstance(out, Tensor) else out
        for slot, tangent in zip(op.results, tangents, strict=True):
            if slot is not None:
                self._write(op, slot, tangent)

    # -- values ---------------------------------------------------------------------------------------------------

    def _value(self, op: Op, slot: Any) -> Any:
        """Return an argument or a result as the forward had it."""
        if isinstance(slot, list):
            return [self._value(op, one) for one in slot]
        if not isinstance(slot, Slot):
            return slot
        if slot.cell in self._parameters:
            if slot.cell not in self._starts:
                self._starts[slot.cell] = self._storage_at_start(slot.cell)
            return slot.view_of(self._starts[slot.cell])
        if slot.overwritten:
            raise TapeError(
                f"a tensor of shape {tuple(slot.layout[0])} that {op.kind.name} read or returned has been overwritten "
                "in place since the forward, so the recorded pass cannot be differentiated any more"
            )
        return slot.value

    def _storage_at_start(self, cell: int) -> Tensor:
        """Return a tensor in whose storage the parameters lie as they did in the forward."""
        now = self._parameters[cell][0][0].detach()
        moved = [(slot, self._start[q]) for q, slot in self._parameters[cell] if q in self._start]
        return _laid_out(moved, lambda: _copy_of_storage(now)) if moved else now

    # -- tangents -------------------------------------------------------------------------------------------------

    def _dot(self, slot: Any) -> Any:
        """Return the tangent of an argument; None for zero, and for what is no tensor."""
        if isinstance(slot, list):
            return [self._dot(one) for one in slot]
        if not isinstance(slot, Slot) or slot.cell < 0:
            return None
        if slot.cell in self._parameters and slot.cell not in self._asked:
            self._asked.add(slot.cell)
            moved = [(place, q) for q, place in self._parameters[slot.cell] if q in self._start]
            if moved:
                moves = [(place, self._direction(q).detach()) for place, q in moved]
                self._mirrors[slot.cell] = _laid_out(moves, moved[0][0].zero_storage)
        mirror = self._mirrors.get(slot.cell)
        return None if mirror is None else slot.view_of(mirror)

    def _write(self, op: Op, slot: Slot, tangent: Tensor | None) -> None:
        """Let the mirror hold the tangent of a result: by reference where it can, else by a copy."""
        mirror = self._mirrors.get(slot.cell)
        whole = slot.fills_storage and slot.cell not in self._parameters
        if mirror is not None and (tangent is None or not whole):
            place = slot.view_of(mirror)
            if tangent is None:
                place.zero_()
            elif not (tangent.data_ptr() == place.data_ptr() and layout(tangent) == layout(place)):
                place.copy_(tangent)
        elif tangent is None:
            pass
        elif not slot.fills_storage:
            self._mirrors[slot.cell] = mirror = slot.zero_storage()
            slot.view_of(mirror).copy_(tangent)
        elif layout(tangent) == slot.layout and not self._shared(op, slot, tangent):
            self._mirrors[slot.cell] = tangent
        else:
            size, stride, _, dtype = slot.layout
            self._mirrors[slot.cell] = torch.empty_strided(size, stride, dtype=dtype, device=slot.device).copy_(tangent)

    def _shared(self, op: Op, slot: Slot, tangent: Tensor) -> bool:
        """Return whether a tangent lies in the mirror of an argument that somebody still reads."""
        address = tangent.untyped_storage()._cdata
        return any(
            (mirror := self._mirrors.get(other.cell)) is not None
            and mirror.untyped_storage()._cdata == address
            and (other.cell not in op.last or other.cell in self._parameters)
            and other.cell != slot.cell
            for other in op.slots()
        )


def _laid_out(parts: Sequence[tuple[Slot, Tensor]], new_storage: Callable[[], Tensor]) -> Tensor:
    """Return a tensor in whose storage the parts lie as their slots say: the part itself if it already does."""
    slot, tensor = parts[0]
    if len(parts) == 1 and slot.fills_storage and layout(tensor) == slot.layout:
        return tensor
    base = new_storage()
    for slot, tensor in parts:
        slot.view_of(base).copy_(tensor)
    return base


def _copy_of_storage(tensor: Tensor) -> Tensor:
    count = tensor.untyped_storage().nbytes() // tensor.element_size()
    return tensor.as_strided((count,), (1,), 0).clone()


@contextlib.contextmanager
def _no_autocast(device: str) -> Iterator[None]:
    """Rules see what autocast made of the forward; it must not cast their own arithmetic again."""
    with contextlib.ExitStack() as stack:
        for kind in {"cpu", device}:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
