"""Which storages depend on a parameter, and which values are kept of them while a forward runs."""

from __future__ import annotations

from collections.abc import Iterable
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

    Attributes:
        parameters: by cell, the parameters in that storage and where they lie in it.
    """

    def __init__(self, parameters: Iterable[Tensor], constants: Iterable[Tensor]) -> None:
        self.parameters: dict[int, list[tuple[Tensor, Slot]]] = {}
        self._cells: dict[int, int] = {}
        self._storages: list[StorageWeakRef] = []  # while these live no address is used again
        self._values: dict[int, list[Slot]] = {}  # slots with a value, by the address of its storage
        for parameter in parameters:
            slot = self.result(parameter)
            self.parameters.setdefault(slot.cell, []).append((parameter, slot))
        for constant in constants:
            self.settle(constant)

    def cell_at(self, address: int) -> int:
        """Return the number of the storage at an address."""
        return self._cells.get(address, UNKNOWN)

    def result(self, tensor: Tensor) -> Slot:
        """Return the slot of a tensor that depends on a parameter, from now on."""
        cell = self.cell_at(address_of(tensor))
        return Slot.of(tensor, cell if cell >= 0 else self._enter(tensor, len(self._storages)))

    def settle(self, tensor: Tensor) -> None:
        """Note that a tensor does not depend on a parameter, unless it is known to."""
        if (tensor.requires_grad or tensor.is_floating_point()) and self.cell_at(address_of(tensor)) == UNKNOWN:
            self._enter(tensor, CONSTANT)

    def _enter(self, tensor: Tensor, cell: int) -> int:
        storage = tensor.untyped_storage()
        self._cells[storage._cdata] = cell
        self._storages.append(StorageWeakRef(storage))
        return cell

    def slots(self, value: Any, *, keep: bool = False, written: bool = False) -> Any:
        """Return an argument with slots in the place of tensors.

        Args:
            value: the argument.
            keep: whether a rule needs the value of the tensor.
            written: whether the operation is about to write over it.
        """
        if isinstance(value, (list, tuple)):
            return [self.slots(one, keep=keep, written=written) for one in value]
        if not isinstance(value, Tensor):
            return value
        if value.layout != torch.strided:  # sparse: it has no storage, and is kept as it is
            return value.detach() if keep else None
        slot = Slot.of(value, self.cell_at(address_of(value)))
        if keep and slot.cell not in self.parameters:
            if written:
                slot.value = value.detach().clone()
            else:
                self.keep(slot, value)
        return slot

    def keep(self, slot: Slot, tensor: Tensor, writes: int = 0) -> None:
        """Keep the value of a tensor, by reference; torch is yet to count so many writes to it."""
        slot.value = tensor.detach()
        if not tensor.is_inference():
            slot.version = slot.value._version + writes
        self._values.setdefault(address_of(tensor), []).append(slot)

    def save_from_write(self, tensor: Tensor) -> None:
        """Copy the values that a write to a tensor, within the forward, is about to destroy."""
        for slot in self._values.pop(address_of(tensor), ()):
            if slot.value is not None:
                slot.value, slot.version = slot.value.clone(), -1


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
