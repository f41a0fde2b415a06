"""One recorded operation."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from safestep.tape.kinds import Kind
from safestep.tape.rules import Position
from safestep.tape.slots import Slot


@dataclass(eq=False, slots=True)
class Op:
    """One recorded operation: its arguments, with slots in the place of tensors, and its results.

    Attributes:
        kind: what sort of operation.
        args: positional arguments.
        kwargs: keyword arguments.
        results: slots of the results that are differentiated, None in place of the others.
        kept: slots of all results, where the rule needs their values, None in place of the others.
        reason: why it cannot be differentiated; an empty text if it can.
        last: the cells that no later operation reads.
        spent: the arguments whose tangent nobody reads once this operation is done.
    """

    kind: Kind
    args: list[Any]
    kwargs: dict[str, Any]
    results: list[Slot | None] = field(default_factory=list)
    kept: list[Slot | None] = field(default_factory=list)
    reason: str = ""
    last: Collection[int] = ()
    spent: Collection[Position] = ()

    def slots(self) -> Iterator[Slot]:
        """Return the slots of the arguments."""
        for value in (*self.args, *self.kwargs.values()):
            if isinstance(value, Slot):
                yield value
            elif isinstance(value, list):
                yield from (one for one in value if isinstance(one, Slot))


def leading_to(cells: Collection[int], ops: list[Op], lent: Collection[int]) -> list[Op]:
    """Return the operations that lead to some cells, and tell each what nobody reads after it.

    Args:
        cells: the cells that count.
        ops: the operations, in order.
        lent: cells whose tangent belongs to the caller, and is never written to.
    """
    alive, found = set(cells), []
    for op in reversed(ops):
        first = next((slot for slot in op.results if slot is not None and slot.cell in alive), None)
        if first is None:
            continue
        slots = list(op.slots())
        read = {slot.cell for slot in slots if slot.cell >= 0}
        arguments_cells = [slot.cell for slot in slots]
        op.last = read - alive
        arguments: list[tuple[Position, Any]] = [*enumerate(op.args), *op.kwargs.items()]
        op.spent = [
            position
            for position, slot in arguments
            if isinstance(slot, Slot)
            and (slot.cell in op.last or (slot.cell == first.cell and slot.layout == first.layout))
            and slot.cell not in lent
            and arguments_cells.count(slot.cell) == 1
            and not slot.overlaps
        ]
        alive |= read
        found.append(op)
    return found[::-1]
