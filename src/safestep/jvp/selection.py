"""Which way J p is measured for a model: forward mode where it is right, differences where it is not, said once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from safestep._torch.warn_once import warn
from safestep.distributed.consensus import Peers
from safestep.distributed.dtensor import whole
from safestep.errors import MeasurementError, first_line
from safestep.jvp.derivative import Derivative, Line, central_difference, forward_mode, recorded
from safestep.jvp.failing_layer import failing_layer
from safestep.jvp.replay import Mode, run
from safestep.recording.forward import Forward
from safestep.recording.forwards import Forwards

Way = Literal["tangents", "forward-mode", "difference", "difference in float32"]
"""In order of preference: exact up to rounding, over the recorded training pass or by running it again; relative error
near 1e-9; near 1e-3."""

EXACT: tuple[Way, ...] = ("tangents", "forward-mode")

_CHECKS: tuple[Way, ...] = ("difference in float32", "difference")
"""What confirms forward mode: the cheap look first; near kinks it is rough, and float64 decides."""

_OTHER_DRAW = "draws other random numbers than training did (a dropout mask in another memory layout)"

_AGREE = 0.1
"""Relative distance up to which a rough difference confirms a forward-mode derivative."""

_SHORT = 0.01
"""Change of the logits, in nats, of the forward that confirms."""
_CHUNK = 1 << 20
"""Elements of the logits that are compared at a time."""


@dataclass(frozen=True, slots=True)
class Route:
    """What a guard has learned about measuring its model.

    Attributes:
        way: the way in use; None before the first measurement.
        faithful: whether a replay that way repeats the training forward. If no way does (a random source of its own,
            say), r belongs to another draw of the model than the one that was trained.
        uses: how many forwards were measured. At every power of two the way is chosen anew: a tangent may be lost in
            a part of the model that moves no logit at first (behind a head that starts at zero).
    """

    way: Way | None = None
    faithful: bool = True
    uses: int = 0

    @property
    def exact(self) -> bool:
        """Whether what was measured last is the derivative of the training forward, up to rounding."""
        return self.way in EXACT and self.faithful

    def derivative(self, forwards: Forwards, forward: Forward, mode: Mode, line: Line) -> tuple[Derivative, Route]:
        """Return the heads with their derivatives along the line, and the route to take from now on.

        Raises:
            MeasurementError: if no way works for this model; it names the layer.
        """
        trial = _Trial(forwards, forward, mode, line)
        uses = self.uses + 1
        if self.way is not None and uses & (uses - 1):
            derivative, _ = trial.go(self.way)
            # An all-zero tangent may be a lost one: look again.
            repeats = derivative is not None and trial.peers.every(not self.faithful or trial.repeats(derivative))
            if derivative is not None and repeats and trial.moves(derivative):
                return derivative, replace(self, uses=uses)
        derivative, route = trial.choose(self)
        return derivative, replace(route, uses=uses)


@dataclass(frozen=True, slots=True)
class _Trial:
    """The attempts to measure one forward."""

    forwards: Forwards
    forward: Forward
    mode: Mode
    line: Line

    def go(self, way: Way) -> tuple[Derivative | None, Exception | None]:
        """Return the derivative measured that way, or why it cannot be, here or on another rank."""
        try:
            derivative, error = self._measured(way), None
        except torch.OutOfMemoryError:
            raise
        except Exception as failed:  # torch raises RuntimeError and its kin, a user's layer whatever it likes
            derivative, error = None, failed
        if self.peers.some(error is not None):
            return None, error or MeasurementError("another rank cannot measure this way")
        return derivative, None

    def _measured(self, way: Way) -> Derivative:
        arguments = (self.forwards, self.forward, self.mode, self.line)
        if way == "tangents":
            return recorded(self.forwards, self.forward, self.line)
        if way == "forward-mode":
            return forward_mode(*arguments)
        return central_difference(*arguments, torch.float64 if way == "difference" else torch.float32)

    @property
    def peers(self) -> Peers:
        """Those who have to take the same way, since a forward needs all of them."""
        return self.forwards.peers.in_step

    def moves(self, derivative: Derivative) -> bool:
        """Return whether some logit moves, on some rank."""
        return self.peers.some(any(bool(whole(tangent.any())) for tangent in derivative[1]))

    @property
    def taped(self) -> bool:
        """Whether the training forward was recorded, operation by operation."""
        return self.forward.tape is not None and self.mode == "train"

    @property
    def quantised(self) -> bool:
        """Whether the derivative goes straight through a staircase, of which a difference tells nothing."""
        return self.forward.tape is not None and self.forward.tape.quantised

    def repeats(self, derivative: Derivative) -> bool:
        """Return whether the replay was the training forward; in eval mode it is not meant to be."""
        return self.mode == "eval" or self.forward.repeated_by(derivative[0])

    def choose(self, known: Route) -> tuple[Derivative, Route]:
        """Try the ways in order of preference; keep the first that is right, else the first that runs at all.

        What differs from the known route is said.
        """
        spare: tuple[Derivative, Way] | None = None
        missed, doubt, error = "", "", None
        for way in get_args(Way):
            if way == "tangents" and not self.peers.every(self.taped):
                continue
            derivative, error = self.go(way)
            if way == "tangents":
                missed = str(error) if derivative is None else "" if self.quantised else self.contradiction(derivative)
                if derivative is not None and not missed:
                    return derivative, Route(way)
                continue
            if derivative is None:
                doubt = doubt or f"fails in {failing_layer(self.forwards, self.attempt)} ({first_line(error)})"
            elif not self.peers.every(self.repeats(derivative)):
                spare = spare or (derivative, way)
                doubt = doubt or _OTHER_DRAW
            elif way == "forward-mode" and (contradiction := self.contradiction(derivative)):
                spare = spare or (derivative, way)
                doubt = contradiction
            else:
                if missed and way == "forward-mode" != known.way:
                    _say(
                        f"the training pass cannot be differentiated as it ran ({missed}): r is measured by another one"
                    )
                if way not in {"forward-mode", known.way}:
                    _say(f"forward-mode differentiation {doubt}: r is measured by central differences of the logits")
                return derivative, Route(way)
        if spare is None:
            raise MeasurementError(
                f"r cannot be measured: running the model again {doubt}. The forward must be repeatable with "
                "torch.func.functional_call; replace this layer, or attach with policy=Watch() to train unprotected"
            ) from error
        derivative, way = spare
        if not self.moves(derivative):
            raise MeasurementError(
                "r cannot be measured: the replay neither repeats the training forward nor follows the parameters "
                "(does the model use a parameter from a list or a closure, and not by the name it is registered under?)"
            )
        if known.faithful:
            _say(
                "no replay repeats the training forward (does the model draw from a generator of its own, or did "
                "the parameters change between the forward and the step?): r belongs to another draw, and no record "
                "calls it exact"
            )
        return derivative, Route(way, faithful=False)

    def attempt(self) -> None:
        """Run the way that is tried first, errors and all."""
        forward_mode(self.forwards, self.forward, self.mode, self.line)

    def contradiction(self, derivative: Derivative) -> str:
        """Return what is wrong with a forward-mode derivative, by a difference; an empty text if nothing is.

        A tangent lost on the way (.detach(), a compiled or checkpointed region) is wrong without an error. If the
        difference is the smaller one (a straight-through estimator over a staircase), the derivative stands.
        """
        ours = self.peers.largest(_largest(derivative[1]))
        if not math.isfinite(ours) or self.peers.every(self.confirmed(derivative, ours)):
            return ""
        found = ""
        for way in _CHECKS:
            rough, _ = self.go(way)
            if not self.peers.every(rough is not None and self.repeats(rough)) or rough is None:
                continue  # nothing to compare with
            others = [tangent.nan_to_num(nan=0.0) for tangent in rough[1]]  # nan: a class masked by a logit of -inf
            differences = [a - b for a, b in zip(derivative[1], others, strict=True)]
            theirs, apart = map(self.peers.largest, (_largest(others), _largest(differences)))
            if apart <= _AGREE * max(ours, theirs) or ours > theirs:
                return ""
            found = (
                f"disagrees with a difference of the logits (largest change {ours:.3g} against {theirs:.3g}): "
                "something in the model hides its parameters from differentiation (.detach(), a compiled or "
                "checkpointed region)"
            )
        return found

    def confirmed(self, derivative: Derivative, size: float) -> bool:
        """Return whether one forward a little along the step bears a derivative out, with no fourth tensor of its size.

        What it does not confirm is not refuted: near a kink only smaller steps tell.
        """
        part = _SHORT / size if size > 0.0 else math.inf
        plain = all(value.dtype in {torch.float32, torch.float64} and value.ndim > 1 for value in derivative[0])
        if not (math.isfinite(part) and self.peers.every(plain)):
            return False
        try:
            moved = run(self.forwards, self.forward, self.mode, self.line.at(part / self.line.unit), None)
        except torch.OutOfMemoryError:
            raise
        except Exception:
            return False
        apart = max(
            (_apart(*head, part) for head in zip(derivative[0], moved, derivative[1], strict=True)), default=0.0
        )
        return apart <= _AGREE * size  # false for nan


def _apart(value: Tensor, moved: Tensor, tangent: Tensor, part: float) -> float:
    """Return how far a difference and a derivative lie apart, with no further tensor of their size."""
    few = max(1, _CHUNK // max(1, value.shape[-1]))
    pieces = (tensor.flatten(0, -2).split(few) for tensor in (value, moved, tangent))
    return _largest([_distance((there - here) / part, along) for here, there, along in zip(*pieces, strict=True)])


def _distance(one: Tensor, other: Tensor) -> Tensor:
    return whole((one - other).abs().amax()) if one.numel() else torch.zeros(())


def _largest(tensors: list[Tensor]) -> float:
    """Return the largest element; nan if one is."""
    sizes = [whole(tensor.abs().amax()).item() for tensor in tensors if tensor.numel()]
    return max(sizes, key=lambda size: (math.isnan(size), size), default=0.0)


def _say(text: str) -> None:
    warn(text)


def as_state(route: Route) -> dict[str, Any]:
    """Return a route as plain data, for a checkpoint."""
    return {"way": route.way, "faithful": route.faithful, "uses": route.uses}


def from_state(state: dict[str, Any] | None) -> Route:
    """Return the route of a checkpoint; None is the untried one."""
    return Route(state["way"], bool(state["faithful"]), int(state["uses"])) if state else Route()
