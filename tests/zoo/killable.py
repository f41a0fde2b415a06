"""A process that trains, checkpoints every few steps, and may be killed: ``python killable.py DIRECTORY [STEP]``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from safestep import Cap
from zoo.checkpoints import STEPS, Journey

EVERY = 3


def train(directory: Path, killed_at: int | None = None) -> Journey:
    """Go on from the checkpoint, if there is one, to the end or to a SIGKILL in the middle of a step."""
    journey = Journey(policy=Cap(0.1), log=directory / "log.jsonl")
    checkpoint = directory / "checkpoint.pt"
    if checkpoint.exists():
        journey.load(checkpoint.read_bytes())
    while journey.index < STEPS:
        if journey.index == killed_at:
            # the guard has copied the parameters: in the middle of its work
            journey.optimizer.register_step_pre_hook(lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        journey.step()
        if journey.index % EVERY == 0:
            new = directory / "checkpoint.new"
            new.write_bytes(journey.saved())
            new.replace(checkpoint)  # a kill leaves the old one or the new one, never half of one
    return journey


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), *map(int, sys.argv[2:]))
