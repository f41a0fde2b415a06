"""A model put back for a moment to where a step started: what a diagnostic asks there leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from safestep.jvp.restore import untouched
from safestep.recording.forwards import Forwards
from safestep.recording.mute import unheard
from safestep.recording.step import Step


@contextmanager
def at_start(step: Step, forwards: Forwards) -> Iterator[None]:
    """Let the parameters hold ``theta_0`` inside; afterwards model and generators are bit for bit what they were.

    No guard hears of the forwards inside, which draw what the recorded forward drew, if there was one. Every ``.grad``
    is None inside, and the very same tensor again afterwards.

    Args:
        step: the step that was just taken.
        forwards: names the model.
    """
    with unheard(), untouched(forwards.model, step.start):
        if len(forwards.kept) == 1:  # the same dropout masks
            forwards.kept[0].generators.restore()
        with torch.no_grad():
            for parameter, origin in step.start.items():
                parameter.copy_(origin)
        yield
