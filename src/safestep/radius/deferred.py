"""sync='never': a step is decided on the device, and the host reads the result one step later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safestep.recording.step import Step, Vitals
from safestep.records.reading import Reading

State = dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the host knows of a step once its numbers have come in.

    Attributes:
        reading: the predicted r.
        vitals: ``||p||``, ``g.p`` and ``e``.
        state: of the radius, to pass in at the next step.
    """

    reading: Reading
    vitals: Vitals
    state: State


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is known of a step without reading the device.

    Attributes:
        ratio: r at most, a 0-d tensor, for the policy to decide by; nan or inf for a step that is not finite.
        length: ``||p||_2``, a 0-d tensor.
        numbers: what ``resolve`` needs, a 1-D tensor on the device.
        resolve: from the numbers, once they are on the host, to what they mean.
    """

    ratio: Tensor
    length: Tensor
    numbers: Tensor
    resolve: Callable[[list[float]], Resolved]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy makes of it, still on the device.

    Attributes:
        scale: the factor s that the policy stands for, a 0-d tensor; 0 for a step that is not finite.
        prediction: what it was decided by.
        target: the r that the policy aims at; nan where it aims at none.
    """

    scale: Tensor
    prediction: Prediction
    target: float

    @property
    def numbers(self) -> Tensor:
        """What the host will have to know: the numbers of the prediction, then the scale."""
        numbers = self.prediction.numbers
        return torch.cat([numbers, self.scale.to(numbers).reshape(1)])

    def apply(self, step: Step) -> None:
        """Rescale the step; where the host can read the scale for nothing, a step whose scale is 1 is not written."""
        if self.scale.device.type == "cpu":
            step.rescale(self.scale.item())
        else:
            step.rescale_unread(self.scale)


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
