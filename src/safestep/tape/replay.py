"""Carries tangents through the recorded operations; the model itself is not run (as in `jvp.replay`)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from safestep.errors import TapeError
from safestep.tape.op import Op
from safestep.tape.rules import Call
from safestep.tape.slots import Slot, layout

Known = Mapping[int, Sequence[tuple[Tensor, Slot]]]
"""The parameters in each storage that holds any, with where they lie in it."""


class Replay:
    """One pass of tangents over recorded operations.

    The tangent of a tensor is the same look at the *mirror* of its storage as the tensor is at the storage. A storage
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
        parameters: Known,
        start: Mapping[Tensor, Tensor],
        direction: Callable[[Tensor], Tensor],
    ) -> None:
        self._ops, self._parameters, self._start, self._direction = ops, parameters, start, direction
        self._mirrors: dict[int, Tensor] = {}
        self._asked: set[int] = set()
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
        tangent = self._dot(slot)
        if tangent is None:
            return torch.zeros(slot.layout[0], dtype=slot.layout[3], device=slot.device)
        return tangent.clone() if slot.cell in self._parameters else tangent

    def _advance(self, op: Op) -> None:
        dots = [self._dots(value) for value in op.args]
        named = {name: self._dot(value) for name, value in op.kwargs.items() if isinstance(value, Slot)}
        first = next(slot for slot in op.results if slot is not None)
        if all(dot is None for dot in _flat(dots)) and all(dot is None for dot in named.values()):
            tangents: Sequence[Tensor | None] = [None] * len(op.results)
        else:
            call = Call(
                op.kind.func,
                op.args,
                [self._values(op, value) for value in op.args],
                {name: self._values(op, value) for name, value in op.kwargs.items()},
                dots,
                named,
                [None if slot is None else self._value(op, slot) for slot in op.kept],
                op.spent,
                first.layout[0],
                first.layout[3],
            )
            found = _formula(op)(call)
            tangents = [found] if found is None or isinstance(found, Tensor) else found
        for slot, tangent in zip(op.results, tangents, strict=True):
            if slot is not None:
                self._write(op, slot, tangent)

    # -- values ---------------------------------------------------------------------------------------------------

    def _values(self, op: Op, value: Any) -> Any:
        if isinstance(value, Slot):
            return self._value(op, value)
        return [self._values(op, one) for one in value] if isinstance(value, list) else value

    def _value(self, op: Op, slot: Slot) -> Tensor | None:
        if slot.cell in self._parameters:
            return slot.look(self._started(slot.cell))
        if slot.overwritten:
            raise TapeError(
                f"a tensor of shape {tuple(slot.layout[0])} that {op.kind.name} read or returned has been overwritten "
                "in place since the forward, so the recorded pass cannot be differentiated any more"
            )
        return slot.value

    def _started(self, cell: int) -> Tensor:
        """Return a tensor in whose storage the parameters lie as they did in the forward."""
        if cell not in self._starts:
            known = self._parameters[cell]
            moved = [(slot, self._start[q]) for q, slot in known if q in self._start]
            now = known[0][0].detach()
            if not moved:
                self._starts[cell] = now
            elif len(moved) == len(known):
                self._starts[cell] = _laid(moved, lambda: _copy_of_storage(now))
            else:
                self._starts[cell] = _over(_copy_of_storage(now), moved)
        return self._starts[cell]

    # -- tangents -------------------------------------------------------------------------------------------------

    def _dots(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._dots(one) for one in value]
        return self._dot(value) if isinstance(value, Slot) else None

    def _dot(self, slot: Slot) -> Tensor | None:
        if slot.cell < 0:
            return None
        if slot.cell in self._parameters and slot.cell not in self._asked:
            self._asked.add(slot.cell)
            known = [(place, q) for q, place in self._parameters[slot.cell] if q in self._start]
            if known:
                moves = [(place, self._direction(q).detach()) for place, q in known]
                self._mirrors[slot.cell] = _laid(moves, known[0][0].fresh)
        mirror = self._mirrors.get(slot.cell)
        return None if mirror is None else slot.look(mirror)

    def _write(self, op: Op, slot: Slot, tangent: Tensor | None) -> None:
        mirror = self._mirrors.get(slot.cell)
        if mirror is not None and not (slot.whole and tangent is not None and slot.cell not in self._parameters):
            place = slot.look(mirror)
            if tangent is None:
                place.zero_()
            elif tangent is not place and not _same(tangent, place):
                place.copy_(tangent)
            return
        if tangent is None:
            return
        if slot.whole:
            if layout(tangent) == slot.layout and not self._shared(op, slot, tangent):
                self._mirrors[slot.cell] = tangent
                return
            size, stride, _, dtype = slot.layout
            self._mirrors[slot.cell] = torch.empty_strided(size, stride, dtype=dtype, device=slot.device).copy_(tangent)
            return
        self._mirrors[slot.cell] = mirror = slot.fresh()
        slot.look(mirror).copy_(tangent)

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


def _formula(op: Op) -> Callable[[Call], Any]:
    if op.kind.rule is None:
        raise TapeError(f"{op.kind.name} cannot be differentiated: {op.reason}")
    return op.kind.rule.formula


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from value
        else:
            yield value


def _same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and layout(one) == layout(other)


def _laid(parts: Sequence[tuple[Slot, Tensor]], fresh: Callable[[], Tensor]) -> Tensor:
    """Return a tensor in whose storage the parts lie as their slots say: the part itself if it already does."""
    slot, tensor = parts[0]
    if len(parts) == 1 and slot.whole and layout(tensor) == slot.layout:
        return tensor
    return _over(fresh(), parts)


def _over(base: Tensor, parts: Sequence[tuple[Slot, Tensor]]) -> Tensor:
    for slot, tensor in parts:
        slot.look(base).copy_(tensor)
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
