"""One recorded operation, and which of them lead to an output."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from safestep.tape.kinds import OpKind
from safestep.tape.slots import Slot


@dataclass(eq=False, slots=True)
class Op:
    """One recorded operation: its arguments, with slots in the place of tensors, and its results.

    Attributes:
        kind: what sort of operation.
        args: all arguments, in the order of its schema.
        results: slots of the results that are differentiated, None in place of the others.
        values: slots of all results, where the rule needs their values, None in place of the others.
        reason: why it cannot be differentiated; an empty text if it can.
        last: the cells that no later operation reads.
        spent: places of the arguments whose tangent nobody reads once this operation is done.
    """

    kind: OpKind
    args: list[Any]
    results: list[Slot | None] = field(default_factory=list)
    values: list[Slot | None] = field(default_factory=list)
    reason: str = ""
    last: Collection[int] = ()
    spent: Collection[int] = ()

    def slots(self) -> Iterator[Slot]:
        """Return the slots of the arguments."""
        for value in self.args:
            if isinstance(value, Slot):
                yield value
            elif isinstance(value, list):
                yield from (one for one in value if isinstance(one, Slot))

    def set_lifetimes(self, alive: Collection[int], parameters: Collection[int]) -> None:
        """Note which tangents nobody reads after this operation, so that they can be dropped or written over.

        Args:
            alive: the cells that are read later.
            parameters: the cells of parameters, whose tangents belong to the caller.
        """
        cells = [slot.cell for slot in self.slots()]
        self.last = {cell for cell in cells if cell >= 0 and cell not in alive}
        first = next(slot for slot in self.results if slot is not None)
        self.spent = [
            place
            for place, slot in enumerate(self.args)
            if isinstance(slot, Slot)
            and (slot.cell in self.last or (slot.cell == first.cell and slot.layout == first.layout))
            and slot.cell not in parameters
            and cells.count(slot.cell) == 1
            and not slot.overlaps
        ]


def leading_to(cells: Collection[int], ops: list[Op], parameters: Collection[int]) -> list[Op]:
    """Return the operations that lead to some cells, in order, and set how long their tangents live."""
    alive, leading = set(cells), []
    for op in reversed(ops):
        if any(slot is not None and slot.cell in alive for slot in op.results):
            op.set_lifetimes(alive, parameters)
            alive |= {slot.cell for slot in op.slots() if slot.cell >= 0}
            leading.append(op)
    return leading[::-1]
