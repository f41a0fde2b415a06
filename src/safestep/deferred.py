"""A step that is decided on the device: the host reads what became of it a step later, and never waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safestep.reading import Reading
from safestep.step import Vitals

State = dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Settled:
    """What the host knows of a step once its numbers have come in.

    Attributes:
        reading: the predicted r.
        vitals: length, slope and effort.
        scale: the factor that the step was multiplied by.
        state: of the radius, to pass in at the next step.
    """

    reading: Reading
    vitals: Vitals
    scale: float
    state: State


@dataclass(frozen=True, slots=True)
class Foresight:
    """What to do about a step without reading the device.

    Attributes:
        scale: the factor s, a 0-d tensor; 0 for a step that is not finite.
        numbers: what ``settle`` needs, a 1-D tensor on the device.
        settle: from the numbers, once they are on the host, to what they mean.
    """

    scale: Tensor
    numbers: Tensor
    settle: Callable[[list[float]], Settled]


class Later:
    """Numbers on their way from the device to the host.

    The copy runs beside the training; by the time the next step asks for the numbers they are there.
    """

    def __init__(self, numbers: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if numbers.device.type == "cuda":
            self._numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._numbers.copy_(numbers, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._numbers = numbers

    def tolist(self) -> list[float]:
        """Return the numbers, after waiting for what has not arrived yet."""
        if self._event is not None:
            self._event.synchronize()
        values: list[float] = self._numbers.tolist()
        return values
