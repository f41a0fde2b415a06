"""The softmax radius: r = spread(J p) / pi, the largest over the samples of the step's batch."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from safestep.derivative import Line
from safestep.errors import MeasurementError, SafestepWarning
from safestep.formulas.softmax import Head, spread, step_ratio
from safestep.forward import Forward, Seen
from safestep.radius.base import State
from safestep.reading import Reading
from safestep.replay import Mode, no_trace
from safestep.route import Route, as_state, from_state
from safestep.step import Step

Method = Literal["exact"]

_BALANCED = 0.1
"""Rows of a softmax loss's dL/dz sum to zero; a quotient of sums above this is another loss, not rounding."""
_PLAIN_LENGTHS = (1e-12, 1e12)
"""Step lengths between which J p neither under- nor overflows in float32; others are measured rescaled."""


@dataclass(frozen=True, kw_only=True)
class SoftmaxRadius:
    r"""Limits the spread of a step's effect on the logits.

    Equation:
        ``r = max_i spread(J_i p) / pi`` over the samples ``i`` that have a gradient, with ``J_i`` the Jacobian of the
        logits of sample ``i`` in the parameters and ``p`` the displacement of the whole step: momentum,
        preconditioning and weight decay included. ``spread`` is `safestep.formulas.softmax.spread`.

    Attributes:
        method: ``"exact"`` differentiates the recorded forward along ``p`` in forward mode (about three forwards of
            work). Where torch has no forward derivative for a layer, central differences in float64 take its place,
            said once and in every record.
        head: ``"softmax"`` over the last dimension, or ``"sigmoid"`` for independent logits.
        mode: ``"train"`` measures with the train/eval flags, batch statistics and dropout masks of the training
            forward; ``"eval"`` measures the model as it would be evaluated. With BatchNorm the two differ by factors.
        quantile: 1 for the largest sample, the only choice with a guarantee; below 1 that quantile of the samples,
            rounded up to an actual sample, and no reading is called exact.

    Raises:
        ValueError: at construction, for an unknown option or a quantile outside (0, 1].

    Example:
        >>> SoftmaxRadius(head="sigmoid")
        SoftmaxRadius(method='exact', head='sigmoid', mode='train', quantile=1.0)

    Note:
        The bound is on the loss along ``p`` with logits linearised at the start of the step. Samples with a gradient
        of exactly zero do not count (ignored labels, padding), unless their logits are so far apart that the gradient
        may have underflowed. If no sample has a gradient, all of them count. Under autocast, r carries the rounding of
        the reduced precision and is not called exact.

    Reference:
        P. Sao, arXiv 2603.13552 (2026).
    """

    method: Method = "exact"
    head: Head = "softmax"
    mode: Mode = "train"
    quantile: float = 1.0

    def __post_init__(self) -> None:
        """Check the options."""
        for name, allowed in (("method", get_args(Method)), ("head", get_args(Head)), ("mode", get_args(Mode))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(map(repr, allowed))}")
        if not 0.0 < self.quantile <= 1.0:
            raise ValueError(f"quantile={self.quantile!r}: expected a number in (0, 1]; 1 is the largest sample")

    def measure(self, step: Step, seen: Seen, state: State) -> tuple[Reading, State]:
        """Return r of a step over the recorded forwards, and the route that worked. See `Radius.measure`."""
        _check_recorded(seen)
        self._check_loss(seen, state)
        length = step.length
        low, high = _PLAIN_LENGTHS
        # A power of two: dividing by it rounds nothing, and r(c p) = c r(p) puts it back.
        unit = 1.0 if low <= length <= high else 2.0 ** math.floor(math.log2(length))
        line, route = Line.of(step, seen.model, unit), from_state(state)
        spreads, active, exact = [], [], seen.dropped == 0 and self.quantile == 1.0
        with no_trace(seen.model):
            for forward in seen.forwards:
                value, tangent, route = route.derivative(seen, forward, self.mode, line)
                exact = exact and route.exact and not forward.autocast
                pieces = _spreads(value, tangent, self.head)
                spreads.append(pieces.flatten())
                active.append(_active(forward, pieces, value, self.head).flatten())
        ratio = step_ratio(self._largest(torch.cat(spreads), torch.cat(active))) * unit
        return Reading(step.index, ratio, self._describe(route), exact), as_state(route)

    def _largest(self, spreads: Tensor, active: Tensor) -> float:
        counted = spreads[active] if bool(active.any()) else spreads
        if not counted.numel():
            raise MeasurementError("the recorded forward holds no samples (an empty batch): nothing to measure r on")
        if self.quantile == 1.0:
            return float(counted.max())  # max and not sort: it propagates nan
        rank = max(1, math.ceil(self.quantile * counted.numel()))
        return float(counted.kthvalue(rank).values) if bool(torch.isfinite(counted).all()) else float(counted.max())

    def _describe(self, route: Route) -> str:
        quantile = "" if self.quantile == 1.0 else f"/quantile {self.quantile:g}"
        return f"{route.way}/{self.mode}{quantile}"

    def _check_loss(self, seen: Seen, state: State) -> None:
        """Say once, at the first measured step, if the gradient at the logits is not that of a softmax loss."""
        imbalances = [float(f.imbalance) for f in seen.forwards if f.imbalance is not None]
        if state is None and self.head == "softmax" and any(value > _BALANCED for value in imbalances):
            warnings.warn(
                f"the gradient at the logits does not sum to zero over the last dimension (off by {max(imbalances):.0%}"
                " of its size), so the loss is not a softmax cross-entropy over it, and r = 1 is no boundary of it. "
                "Classes in another dimension: attach(..., logits=lambda out: out.movedim(1, -1)). Independent "
                "sigmoids: SoftmaxRadius(head='sigmoid'). A model that returns log-probabilities: r is right as it is",
                SafestepWarning,
                stacklevel=2,
            )


def _check_recorded(seen: Seen) -> None:
    if not seen.forwards:
        raise MeasurementError(
            seen.problem
            or "no forward to measure the step on: backward has not reached the logits of any forward of the guarded "
            "model since the last step. Call the model itself (model(x), not model.forward(x) or a submodule) under "
            "grad mode, attach to the module that you call, and if its output holds several logits say which count: "
            "attach(..., logits=function)"
        )
    if any(forward.changed_inputs() for forward in seen.forwards):
        raise MeasurementError(
            "an input tensor of the model was overwritten in place between its forward and the step, so the forward "
            "cannot be repeated; pass a fresh tensor (or a clone of the buffer) to each forward"
        )


def _spreads(value: Tensor, tangent: Tensor, head: Head) -> Tensor:
    if value.numel() and bool(value.amin() == -math.inf):
        # A class masked by a logit of -inf has weight exp(z) = 0 and no part in the sum F: it copies a live class.
        dead = value == -math.inf
        alive = tangent.masked_fill(dead, -math.inf).amax(-1, keepdim=True)
        tangent = torch.where(dead, alive, tangent)
    return spread(tangent, head=head)


def _active(forward: Forward, spreads: Tensor, value: Tensor, head: Head) -> Tensor:
    """Return which samples count: those with a gradient, and those whose gradient may have underflowed to zero."""
    if forward.active is None or forward.active.shape != spreads.shape:
        return torch.ones_like(spreads, dtype=torch.bool)
    active = forward.active.to(spreads.device)
    if bool(active.all()):
        return active
    limits = torch.finfo(forward.peaks.dtype)
    # P - 1 rounds to zero once exp(-z) < eps (one sigmoid), all of P - onehot once exp(-gap) < tiny (softmax).
    smallest = limits.eps if head == "sigmoid" else limits.tiny
    return active | (_spreads(value, value, head) > -math.log(smallest))
