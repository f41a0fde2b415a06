"""Which ranks take a step together, and how long they wait for each other."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from safestep.distributed.consensus import ALONE, Peers
from safestep.distributed.dtensor import any_sharded
from safestep.errors import AttachError, RanksError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_groups: weakref.WeakKeyDictionary[Any, dict[float, Any]] = weakref.WeakKeyDictionary()
"""The guards' own groups, by the group they were made for and their time-out; torch keeps them alive."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Says which processes train one model together, for ``attach(..., ranks=Ranks(...))``.

    Each rank has a guard of its own, attached to its own model and optimizer. At every step they agree on one r, one
    scale and one decision, over a process group of their own, so that nothing of theirs gets in the way of training.

    Attributes:
        group: the ranks; None for those of a DistributedDataParallel model of plain parameters, and otherwise all.
        timeout: seconds that a rank waits for the others before it raises a RanksError. With NCCL it is the time-out of
            the guards' group, which torch's own watchdog enforces.
        lockstep: that a forward of the model needs all ranks, so that all have to measure at the same time, micro-batch
            by micro-batch. Found by itself for DTensor parameters (``fully_shard``, tensor parallel) and SyncBatchNorm;
            say so for a model whose forward calls collectives on its own.

    Raises:
        ValueError: at construction, for a time-out that is not positive.

    Example:
        >>> Ranks(timeout=60.0).timeout
        60.0
    """

    group: ProcessGroup | None = None
    timeout: float = 300.0
    lockstep: bool = False

    def __post_init__(self) -> None:
        """Check the time-out."""
        if not self.timeout > 0.0:
            raise ValueError(f"Ranks(timeout={self.timeout!r}): expected a positive number of seconds")

    def peers(self, model: nn.Module, parameters: Iterable[Tensor]) -> Peers:
        """Return the peers of this rank's guard; every rank of the group has to ask, before its first step."""
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return ALONE
        parallel = _data_parallel(model)
        if parallel is not None and parallel._join_config.enable:
            raise RanksError(
                "model.join(): ranks that have run out of batches take no steps, and a guard needs the answer of all. "
                "Give every rank as many batches (DistributedSampler(drop_last=True)), or attach(..., ranks=None, "
                "policy=Watch())"
            )
        parameters = list(parameters)
        pieces = any_sharded([*parameters, *model.parameters()])  # whose ranks data-parallel training knows nothing of
        own = parallel.process_group if parallel is not None and not pieces else None
        group = self.group or own or distributed.group.WORLD
        if group is None or group.size() == 1:
            return ALONE
        devices = {parameter.device.type for parameter in parameters}
        known = {part.split(":")[0] for part in str(distributed.get_backend_config(group)).split(",")}
        device = next(iter(sorted(devices & known, reverse=True)), None) or next(iter(sorted(known)))  # cuda before cpu
        together = any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
        lockstep = self.lockstep or together or pieces
        try:
            own, missing = self._own(group), None
        except RuntimeError as error:  # told at the first reduction, where it is known what becomes of the step
            own, missing = group, error
        return Peers(own, device, self.timeout, lockstep=lockstep, missing=missing)

    def _own(self, group: ProcessGroup) -> ProcessGroup:
        """Return a group of the same ranks for the guards alone: a rank that is missing must not upset training's."""
        made = _groups.setdefault(group, {})
        own: ProcessGroup | None = made[self.timeout]() if self.timeout in made else None
        if own is None:
            members = torch.distributed.get_process_group_ranks(group)
            own = torch.distributed.new_group(
                members, timeout=timedelta(seconds=self.timeout), use_local_synchronization=True
            )
            made[self.timeout] = weakref.ref(own)
        return own


def _data_parallel(model: nn.Module) -> nn.parallel.DistributedDataParallel | None:
    """Return the data-parallel wrapper around a model, compiled or not."""
    while isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
        model = inner
    return model if isinstance(model, nn.parallel.DistributedDataParallel) else None


EVERYONE = Ranks()
"""The ranks of a DistributedDataParallel model, and otherwise all there are."""


def check_ranks(model: nn.Module, ranks: object) -> None:
    """Raise AttachError for what several ranks cannot be guarded with."""
    if not (ranks is None or isinstance(ranks, Ranks)):
        raise AttachError(
            f"ranks={ranks!r}: expected a safestep.Ranks(...), or None for a guard that asks no other rank"
        )
    if isinstance(model, nn.Module) and type(model).__name__ == "FullyShardedDataParallel":
        raise AttachError(
            "FullyShardedDataParallel flattens the parameters, so that their step cannot be told from the outside: use "
            "torch.distributed.fsdp.fully_shard(model) instead (FSDP2)"
        )
