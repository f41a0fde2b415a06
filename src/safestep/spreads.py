"""The spread of J p for every sample of the recorded forwards, which samples count, and the largest of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from safestep.errors import NothingToMeasureError
from safestep.formulas.softmax import Head, spread
from safestep.forward import Forward
from safestep.pieces import whole

_CHUNK = 1 << 20
"""Elements of the logits that are looked at at a time: no second tensor of their size is made."""


@dataclass(slots=True)
class Spreads:
    """Collects the spreads of the samples of one step, forward by forward.

    Attributes:
        head: how logits become probabilities.
        values: spreads in nats, one flat tensor for each forward.
        active: which of them count.
    """

    head: Head
    values: list[Tensor] = field(default_factory=list)
    active: list[Tensor] = field(default_factory=list)

    def add(self, forward: Forward, value: Tensor, tangent: Tensor) -> None:
        """Add the samples of a forward: its logits ``z`` and ``J p``, both of shape ``(*samples, classes)``."""
        self._add(forward, _spreads(value, tangent, self.head), value)

    def add_difference(self, forward: Forward, value: Tensor, moved: Tensor, unit: float) -> None:
        """Add the samples of a forward whose ``J p`` is ``(moved - value) / unit``."""
        rows, others = (torch.atleast_2d(logits).flatten(0, -2) for logits in (value, moved))
        few = max(1, _CHUNK // max(1, value.shape[-1]))
        pieces = []
        for row, other in zip(rows.split(few), others.split(few), strict=True):
            change = other - row
            piece = whole(spread(change, head=self.head))
            # inf - inf is nan: only then is there a masked class to look for
            finite = bool(torch.isfinite(piece).all())
            pieces.append(piece if finite else _spreads(row, change, self.head))
        self._add(forward, torch.cat(pieces).view(value.shape[:-1]) / unit, value)

    def _add(self, forward: Forward, spreads: Tensor, value: Tensor) -> None:
        self.values.append(spreads.flatten())
        self.active.append(active_rows(forward, value, self.head).flatten())

    @property
    def empty(self) -> bool:
        """Whether there is no sample at all."""
        return not any(values.numel() for values in self.values)

    def counted(self) -> Tensor:
        """Return the spreads that count: all of them if no sample has a gradient.

        Raises:
            MeasurementError: if there is no sample at all.
        """
        spreads, active = torch.cat(self.values), torch.cat(self.active)
        counted = spreads[active] if bool(active.any()) else spreads
        if not counted.numel():
            raise NothingToMeasureError(
                "the recorded forward holds no samples (an empty batch): nothing to measure r on"
            )
        return counted

    def largest(self, quantile: float = 1.0) -> float:
        """Return the largest spread, or a quantile of them, rounded up to an actual sample; nan if one is nan."""
        counted = self.counted()
        if quantile == 1.0:
            return float(counted.max())  # max and not sort: it propagates nan
        rank = max(1, math.ceil(quantile * counted.numel()))
        return float(counted.kthvalue(rank).values) if bool(torch.isfinite(counted).all()) else float(counted.max())


def _spreads(value: Tensor, tangent: Tensor, head: Head) -> Tensor:
    if value.numel() and bool(whole(value.amin()) == -math.inf):
        # A class masked by a logit of -inf has weight exp(z) = 0 and no part in the sum F: it copies a live class.
        dead = value == -math.inf
        alive = tangent.masked_fill(dead, -math.inf).amax(-1, keepdim=True)
        tangent = torch.where(dead, alive, tangent)
    return whole(spread(tangent, head=head))


def active_rows(forward: Forward, value: Tensor, head: Head) -> Tensor:
    """Return which samples count: those with a gradient, and those whose gradient may have underflowed to zero.

    Args:
        forward: what backward told of it.
        value: its logits, shape ``(*samples, classes)``.
        head: how logits become probabilities.
    """
    if forward.active is None or forward.active.shape != value.shape[:-1]:
        return torch.ones(value.shape[:-1], dtype=torch.bool, device=value.device)
    active = forward.active.to(value.device)
    if bool(active.all()):
        return active
    limits = torch.finfo(forward.peaks.dtype)
    # P - 1 rounds to zero once exp(-z) < eps (one sigmoid), all of P - onehot once exp(-gap) < tiny (softmax).
    smallest = limits.eps if head == "sigmoid" else limits.tiny
    return active | (_spreads(value, value, head) > -math.log(smallest))
