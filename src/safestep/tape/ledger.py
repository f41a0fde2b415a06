"""Which storages depend on a parameter, and which values are kept of them while a forward runs."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from safestep.tape.slots import Slot

UNKNOWN, CONSTANT = -2, -1
"""Cells of storages that nothing is known of, and of those that require a gradient and yet do not depend on a
parameter that may move."""


class Ledger:
    """Numbers the storages of a forward, and keeps values for the rules.

    Args:
        parameters: the parameters that may move.
        constants: tensors that require a gradient and do not depend on them.
    """

    def __init__(self, parameters: Iterable[Tensor], constants: Iterable[Tensor]) -> None:
        self.parameters: dict[int, list[tuple[Tensor, Slot]]] = {}
        self._cells: dict[int, int] = {}
        self._held: list[StorageWeakRef] = []  # while these live no address is used again
        self._holding: dict[int, list[Slot]] = {}
        for parameter in parameters:
            cell = self.cell_for(parameter)
            self.parameters.setdefault(cell, []).append((parameter, Slot.of(parameter, cell)))
        for constant in constants:
            self.settle(constant)

    def cell_at(self, address: int) -> int:
        """Return the number of the storage at an address."""
        return self._cells.get(address, UNKNOWN)

    def cell_for(self, tensor: Tensor) -> int:
        """Return the number of a tensor's storage, a new one if it did not depend on a parameter so far."""
        cell = self._cells.get(address_of(tensor), UNKNOWN)
        return cell if cell >= 0 else self._enter(tensor, len(self._held))

    def settle(self, tensor: Tensor) -> None:
        """Note that a tensor does not depend on a parameter, unless it is known to."""
        if (tensor.requires_grad or tensor.is_floating_point()) and self.cell_at(address_of(tensor)) == UNKNOWN:
            self._enter(tensor, CONSTANT)

    def _enter(self, tensor: Tensor, cell: int) -> int:
        storage = tensor.untyped_storage()
        self._cells[storage._cdata] = cell
        self._held.append(StorageWeakRef(storage))
        return cell

    def slots(self, value: Any, *, keep: bool = False, written: bool = False) -> Any:
        """Return an argument with slots in the place of tensors.

        Args:
            value: the argument.
            keep: whether a rule needs the value of the tensor.
            written: whether the operation is about to write over it.
        """
        if isinstance(value, Tensor):
            if value.layout != torch.strided:  # sparse: it has no storage, and is kept as it is
                return value.detach() if keep else None
            slot = Slot.of(value, self.cell_at(address_of(value)))
            if keep and slot.cell not in self.parameters:
                if written:
                    slot.value = value.detach().clone()
                else:
                    self._hold(slot, value)
            return slot
        if isinstance(value, (list, tuple)):
            return [self.slots(one, keep=keep, written=written) for one in value]
        return value

    def result(self, tensor: Any) -> Slot | None:
        """Return the slot of a result, None if it has no derivative."""
        return Slot.of(tensor, self.cell_for(tensor)) if differentiable(tensor) else None

    def kept(self, outs: list[Any], which: Container[int], *, written: bool) -> list[Slot | None]:
        """Return slots with the values of some results; of an in-place operation, torch counts the write later."""
        slots: list[Slot | None] = [None] * len(outs)
        for index, tensor in enumerate(outs):
            if index in which:
                slots[index] = slot = Slot.of(tensor, self.cell_at(address_of(tensor)))
                self._hold(slot, tensor, expected=int(written))
        return slots

    def _hold(self, slot: Slot, tensor: Tensor, expected: int = 0) -> None:
        """Keep a value that is to be written to so many times before it is looked at."""
        slot.value = tensor.detach()
        if not tensor.is_inference():
            slot.version = slot.value._version + expected
        self._holding.setdefault(address_of(tensor), []).append(slot)

    def save_from(self, target: Any) -> None:
        """Copy the kept values that a write within the forward is about to destroy."""
        for one in target if isinstance(target, (list, tuple)) else (target,):
            if isinstance(one, Tensor):
                for slot in self._holding.pop(address_of(one), ()):
                    slot.value, slot.version = (slot.value if slot.value is None else slot.value.clone()), -1


def shared_versions() -> Any:
    """Return a context in which a detached tensor shares the version counter of its origin, as outside of a mode.

    Inside a mode torch leaves out the layer that keeps count of writes.
    """
    return torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.ADInplaceOrView, False)


def address_of(tensor: Tensor) -> int:
    """Return what tells a tensor's storage from all others that live; 0 for a sparse tensor, which has none."""
    try:
        address: int = tensor.untyped_storage()._cdata
    except NotImplementedError:
        return 0
    return address


def differentiable(tensor: Any) -> bool:
    """Return whether a value can have a tangent."""
    return isinstance(tensor, Tensor) and (tensor.is_floating_point() or tensor.is_complex())
