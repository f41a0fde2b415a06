"""Several gloo ranks: joins this one to the others and runs the checks; the first that fails ends them for all."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from processes import run_checks

OWN = ("`torch.jit.", "FSDP2-wrapped module")
"""Warnings that torch raises in its own code."""
PATIENCE = timedelta(seconds=300)
"""For a rank that lags on a busy machine; one that failed ends its process, which the others notice at once."""


def meet(error: str) -> None:
    """Wait for the other ranks; after an error they are somewhere else, so leave."""
    if error:
        os._exit(0)
    distributed.barrier()


torch.set_num_threads(1)
rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
store = distributed.FileStore(str(Path(os.environ["CHECKS_PLACE"]) / "store"), ranks)
distributed.init_process_group("gloo", rank=rank, world_size=ranks, store=store, timeout=PATIENCE)
run_checks(Path(__file__).parent, last="missing", ignored=OWN, after=meet)
distributed.destroy_process_group()
