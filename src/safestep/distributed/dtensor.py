"""Sharded tensors: the piece that this rank holds, a whole made of new pieces, and who counts a piece."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

_DTENSOR = "torch.distributed.tensor"


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is a DTensor: this rank may hold only a piece of it, or a copy."""
    module = sys.modules.get(_DTENSOR)  # nobody has one before it is imported, and importing it takes a second
    return module is not None and isinstance(tensor, module.DTensor)


def any_sharded(tensors: Iterable[Tensor]) -> bool:
    """Return whether one of them is a DTensor."""
    return _DTENSOR in sys.modules and any(map(is_sharded, tensors))


def piece(tensor: Tensor) -> Tensor:
    """Return the memory that this rank holds of a tensor, detached: the tensor itself unless it is a DTensor.

    Writing to it writes to the tensor. It may be empty.
    """
    detached: Any = tensor.detach()
    local: Tensor = detached.to_local() if is_sharded(tensor) else detached
    return local


def like(tensor: Tensor, local: Tensor) -> Tensor:
    """Return a tensor that is laid out over the ranks as another one, made of this piece of it."""
    if not is_sharded(tensor):
        return local
    whole: Any = tensor
    made: Tensor = sys.modules[_DTENSOR].DTensor.from_local(
        local, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )
    return made


def mapped(change: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Apply an elementwise function to the pieces of tensors laid out alike."""
    return like(tensors[0], change(*map(piece, tensors)))


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor in one piece, gathered from the ranks if it is a DTensor; every rank of its mesh has to ask."""
    if not is_sharded(tensor):
        return tensor
    sharded: Any = tensor
    full: Tensor = sharded.full_tensor()
    return full


def gathered_as(tensor: Tensor, model: Tensor) -> Tensor:
    """Return a tensor as its FSDP2 unit has gathered it: whole, or over the ranks of tensor parallelism alone.

    Args:
        tensor: as it lies between steps.
        model: what the unit has gathered of the same parameter.
    """
    if not is_sharded(model):
        return whole(tensor)
    sharded: Any = tensor
    target: Any = model
    copies = [sys.modules[_DTENSOR].Replicate()] * (len(sharded.placements) - len(target.placements))
    local = sharded.redistribute(placements=[*copies, *target.placements]).to_local()
    return like(model, local)


def laid_alike(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are spread over the ranks in the same way, plain tensors included."""
    if not (is_sharded(one) and is_sharded(other)):
        return is_sharded(one) == is_sharded(other)
    a: Any = one
    b: Any = other
    return bool(a.device_mesh == b.device_mesh and a.placements == b.placements)


def counts_here(tensor: Tensor, first: bool, root: int) -> bool:
    """Return whether this rank adds its piece of a tensor to a sum over all ranks, so that nothing is added twice.

    Args:
        tensor: a DTensor counts once along every mesh dimension that holds copies of it, and on one mesh if several
            hold a copy each; any other tensor on one rank.
        first: whether this is the rank that counts what all ranks hold.
        root: the first of the ranks by its number among all processes.
    """
    if not is_sharded(tensor):
        return first
    sharded: Any = tensor
    place = sharded.device_mesh.get_coordinate()
    if place is None or not bool((sharded.device_mesh.mesh == root).any()):
        return False
    return all(p.is_shard() or at == 0 for p, at in zip(sharded.placements, place, strict=True))
