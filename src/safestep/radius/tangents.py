"""J p of every recorded forward, exactly, one forward after the other, and what is known of measuring them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from safestep.derivative import Line
from safestep.errors import MeasurementError
from safestep.forward import Forward, Seen
from safestep.replay import Mode, no_trace
from safestep.route import Route
from safestep.step import Step

_PLAIN_LENGTHS = (1e-12, 1e12)
"""Step lengths between which J p neither under- nor overflows in float32; others are measured rescaled."""

Tangent = tuple[Forward, Tensor, Tensor]
"""A forward, its logits ``z`` and ``J p / unit``, both of shape ``(*samples, classes)``."""


class Tangents:
    """Iterates over the forwards of a step with their logits and ``J p / unit``.

    One forward's tensors live at a time, unless several radii of one step share them.

    Args:
        step: gives ``p``.
        seen: the recorded forwards.
        mode: train or eval.
        route: what is known of measuring this model.

    Attributes:
        unit: a power of two that ``p`` is divided by, 1 for a step of ordinary length.
        route: what is known after the iteration.
        exact: whether every tangent is the derivative of its training forward up to float32 or float64 rounding, and
            no forward of the step is missing.
    """

    def __init__(self, step: Step, seen: Seen, mode: Mode, route: Route) -> None:
        half = any(torch.float16 in forward.autocast.values() for forward in seen.forwards)
        low, high = (1.0, 1.0) if half else _PLAIN_LENGTHS  # float16 holds but 6e-5 to 65504
        # A power of two: dividing by it rounds nothing, and J p is linear in p.
        self.unit = 1.0 if low <= step.length <= high else 2.0 ** math.floor(math.log2(step.length))
        self.route, self.exact = route, seen.dropped == 0
        self._step, self._seen, self._mode = step, seen, mode

    @property
    def way(self) -> str:
        """How the latest was measured, for the record."""
        return str(self.route.way)

    def __iter__(self) -> Iterator[Tangent]:
        """Measure.

        Raises:
            MeasurementError: if no way works for this model; it names the layer.
        """
        shared = self._seen.shared
        if shared is not None and self._mode in shared:
            self.route, self.exact, found = shared[self._mode]
            yield from found
            return
        kept: list[Tangent] = []
        with no_trace(self._seen.model):
            for one in self._measured():
                if shared is not None:
                    kept.append(one)
                yield one
        if shared is not None:
            shared[self._mode] = self.route, self.exact, kept

    def _measured(self) -> Iterator[Tangent]:
        line = Line.of(self._step, self._seen.model, self.unit)
        for forward in self._seen.forwards:
            value, tangent, self.route = self.route.derivative(self._seen, forward, self._mode, line)
            self.exact = self.exact and self.route.exact and not forward.autocast
            yield forward, value, tangent


def check_recorded(seen: Seen) -> None:
    """Raise MeasurementError if there is no forward to measure on."""
    if not seen.forwards:
        raise MeasurementError(
            seen.problem
            or "no forward to measure the step on: backward has not reached the logits of any forward of the guarded "
            "model since the last step. Call the model itself (model(x), not model.forward(x) or a submodule) under "
            "grad mode, attach to the module that you call, and if its output holds several logits say which count: "
            "attach(..., logits=function)"
        )


def check_inputs(seen: Seen) -> None:
    """Raise MeasurementError if a forward cannot be repeated."""
    if any(forward.changed_inputs() for forward in seen.forwards):
        raise MeasurementError(
            "an input tensor of the model was overwritten in place between its forward and the step, so the forward "
            "cannot be repeated; pass a fresh tensor (or a clone of the buffer) to each forward"
        )
