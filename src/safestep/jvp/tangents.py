"""J p of every recorded forward, exactly, one forward after the other, and what is known of measuring them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from safestep._torch.unwrap import bare
from safestep._torch.warn_once import warn
from safestep.errors import MeasurementError, NothingToMeasureError
from safestep.heads.output import Output
from safestep.jvp.derivative import Line
from safestep.jvp.replay import Mode, no_trace
from safestep.jvp.selection import Route
from safestep.recording.forward import Forward
from safestep.recording.forwards import Forwards
from safestep.recording.step import Step

_PLAIN_LENGTHS = (1e-12, 1e12)
"""Step lengths between which J p neither under- nor overflows in float32; others are measured rescaled."""

_REDUCED = (torch.float16, torch.bfloat16)

_CALL = (
    "call the model itself (model(x), not model.forward(x) or a submodule) under grad mode, attach to the module that "
    "you call (before it first runs compiled, or call torch.compiler.reset())"
)
_NO_FORWARD = (
    "no forward to measure the step on: the guarded {model} has run none under grad mode since safestep watches it. "
    "Was the guard attached between this step's forward and optimizer.step()? Attach before the forward. If not, "
    f"{_CALL}"
)
_UNREACHED = (
    "no forward to measure the step on: backward has not reached the logits of any forward of the guarded {model} "
    "since the last step, or its gradients are gone again. Does this step have a backward of its own, and "
    "zero_grad() come before it, not after? Else "
    f"{_CALL}, and if its output holds several logits say which count: attach(..., logits=function)"
)

Tangent = tuple[Output, Tensor, Tensor]
"""A head of a forward, its values ``z`` and ``J p / unit``, as the model returns them."""


class Tangents:
    """Iterates over the heads of the forwards of a step with their values and ``J p / unit``.

    One forward's tensors live at a time, unless several radii of one step share them.

    Args:
        step: gives ``p``.
        forwards: the recorded forwards.
        mode: train or eval.
        route: what is known of measuring this model.

    Attributes:
        unit: a power of two that ``p`` is divided by, 1 for a step of ordinary length.
        route: what is known after the iteration.
        exact: whether every tangent is the derivative of its training forward up to float32 or float64 rounding, and
            no forward of the step is missing. A type of less precision is seen where autocast was on around the
            forward, in the parameters that move, and on a tape.
    """

    def __init__(self, step: Step, forwards: Forwards, mode: Mode, route: Route) -> None:
        low, high = _PLAIN_LENGTHS
        short = forwards.peers.in_step.some(any(map(_narrow, forwards.kept)))
        self.unit = 1.0 if low <= step.length <= high and not short else unit_of(step.length)
        self.route, self.exact = route, forwards.dropped == 0
        self._step, self._forwards, self._mode = step, forwards, mode

    @property
    def way(self) -> str:
        """How the latest was measured, for the record."""
        return str(self.route.way)

    def __iter__(self) -> Iterator[Tangent]:
        """Measure.

        Raises:
            MeasurementError: if no way works for this model; it names the layer.
        """
        shared = self._forwards.shared
        if shared is not None and self._mode in shared:
            self.route, self.exact, found = shared[self._mode]
            yield from found
            return
        kept: list[Tangent] = []
        with no_trace(self._forwards.model):
            for one in self._measured():
                if shared is not None:
                    kept.append(one)
                yield one
        if shared is not None:
            shared[self._mode] = self.route, self.exact, kept

    def _measured(self) -> Iterator[Tangent]:
        line = Line.of(self._step, self._forwards.model, self.unit)
        self.exact = self.exact and all(tensor.dtype not in _REDUCED for tensor in line.start.values())
        for forward in self._forwards.kept:
            (values, tangents), self.route = self.route.derivative(self._forwards, forward, self._mode, line)
            reduced = forward.reduced or (forward.tape is not None and forward.tape.reduced)
            self.exact = self.exact and self.route.exact and not reduced and not forward.guessed
            yield from zip(forward.heads, values, tangents, strict=True)


def unit_of(length: float) -> float:
    """Return what a step of this length is divided by: a power of two rounds nothing, and J p is linear in p."""
    return 2.0 ** math.floor(math.log2(length)) if 0.0 < length < math.inf else 1.0


def _narrow(forward: Forward) -> bool:
    """Return whether values of a forward may have float16's range, in which the tangents of a short step underflow.

    A forward that was not taped may cast inside; rescaling costs nothing beside running it again.
    """
    return forward.tape is None or bool(forward.tape.problem) or torch.float16 in forward.tape.reduced


def check_forwards(forwards: Forwards, *more: Callable[[Forwards], None]) -> None:
    """Raise if there is no forward to measure on, or one cannot be repeated: on all ranks, if a forward needs all.

    An empty batch is a forward; a rank that did not call the model at all has none.

    Args:
        forwards: what this rank saw.
        more: further checks, of what this rank saw.

    Raises:
        MeasurementError: for what is wrong here, or elsewhere.
    """
    error: Exception | None = None
    try:
        for check in (check_recorded, _check_inputs, *more):
            check(forwards)
    except Exception as failed:
        error = failed
    peers, count = forwards.peers.in_step, float(len(forwards.kept))
    most, least, failures = peers.maxima([count, -count, float(error is not None)])
    if most != -least:
        raise MeasurementError(
            f"the ranks ran the model {-least:g} to {most:g} times in this step, {count:g} times here: it can only be "
            "run by all of them together, so that the step cannot be measured. Let each rank take as many micro-batches"
        )
    if error is not None:
        raise error
    if failures:
        raise MeasurementError("what another rank saw of this step cannot be measured, see its output")


def check_recorded(forwards: Forwards) -> None:
    """Raise MeasurementError if there is no forward to measure on."""
    if not forwards.kept:
        if forwards.problem:
            raise MeasurementError(forwards.problem)
        model = type(bare(forwards.model)).__name__
        raise NothingToMeasureError((_UNREACHED if forwards.begun else _NO_FORWARD).format(model=model))


def say_doubts_of_heads(forwards: Forwards) -> None:
    """Say, once each, what a user should know of how the loss reads the outputs."""
    for doubt in forwards.known.doubts():
        warn(doubt)


def _check_inputs(forwards: Forwards) -> None:
    """Raise MeasurementError if a forward cannot be repeated."""
    for forward in forwards.kept:
        if forward.problem:
            raise MeasurementError(forward.problem)
        if forward.unrepeatable:
            raise MeasurementError(
                f"the forward moved {', '.join(forward.unrepeatable)} on, which cannot be put back, so that running "
                "the model again would leave a trace: keep it out of the forward (update a momentum encoder after the "
                "step), or in a buffer or an attribute"
            )
    if any(forward.changed_inputs() for forward in forwards.kept):
        raise MeasurementError(
            "an input tensor of the model was overwritten in place between its forward and the step, so the forward "
            "cannot be repeated; pass a fresh tensor (or a clone of the buffer) to each forward"
        )
