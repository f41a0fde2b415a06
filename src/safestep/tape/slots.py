"""What a tape remembers of a tensor: where it lay in its storage, and its value where a rule will need it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Layout = tuple[tuple[int, ...], tuple[int, ...], int, torch.dtype]
"""Size, stride, offset in elements, dtype: a tensor without its storage."""


def layout(tensor: Tensor) -> Layout:
    """Return how a tensor lies in its storage."""
    return tensor.size(), tensor.stride(), int(tensor.storage_offset()), tensor.dtype


@dataclass(eq=False, slots=True)
class Slot:
    """One tensor among the arguments or results of an operation.

    Storages and not tensors are followed, since autograd wraps a view in a new tensor: two slots of one cell are two
    views of one storage, and their tangents are the same two views of the mirror of that storage.

    Attributes:
        cell: number of the storage; negative if it does not depend on a parameter.
        layout: how the tensor lies in the storage.
        device: of the tensor.
        nbytes: size of the storage.
        value: the tensor, detached, where a rule needs it; a parameter's is taken from before the step instead.
        version: the version counter that ``value`` has while it still holds what the forward computed.
    """

    cell: int
    layout: Layout
    device: torch.device
    nbytes: int
    value: Tensor | None = None
    version: int = -1

    @classmethod
    def of(cls, tensor: Tensor, cell: int) -> Slot:
        """Return the slot of a tensor, without its value."""
        return cls(cell, layout(tensor), tensor.device, tensor.untyped_storage().nbytes())

    @property
    def overwritten(self) -> bool:
        """Whether the value has been written to in place since the forward."""
        return self.value is not None and self.version >= 0 and self.value._version != self.version

    @property
    def fills_storage(self) -> bool:
        """Whether the tensor fills its storage, each element once."""
        size, _, offset, dtype = self.layout
        return offset == 0 and math.prod(size) * dtype.itemsize == self.nbytes and not self.overlaps

    @property
    def overlaps(self) -> bool:
        """Whether elements share memory, as those of an ``expand()`` do."""
        size, stride, _, _ = self.layout
        return any(length > 1 and step == 0 for length, step in zip(size, stride, strict=True))

    def view_of(self, base: Tensor) -> Tensor:
        """Return the tensor of this layout in the storage of ``base``."""
        size, stride, offset, dtype = self.layout
        if base.dtype != dtype:  # a view as another type, such as complex numbers as pairs
            return torch.empty(0, dtype=dtype, device=base.device).set_(base.untyped_storage(), offset, size, stride)
        if layout(base) == self.layout:
            return base
        return base.as_strided(size, stride, offset)

    def zeros(self) -> Tensor:
        """Return zeros in the shape of the tensor."""
        return torch.zeros(self.layout[0], dtype=self.layout[3], device=self.device)

    def zero_storage(self) -> Tensor:
        """Return a flat tensor of zeros, as long as the storage."""
        dtype = self.layout[3]
        return torch.zeros(-(-self.nbytes // dtype.itemsize), dtype=dtype, device=self.device)
