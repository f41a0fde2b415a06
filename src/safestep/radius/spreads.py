"""The spread of J p for every sample of the recorded forwards, which samples count, and the largest of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from safestep.distributed.dtensor import whole
from safestep.errors import NothingToMeasureError
from safestep.formulas.softmax_ratio import Head as Formula
from safestep.formulas.softmax_ratio import spread
from safestep.heads.head import Head
from safestep.heads.output import Output

_CHUNK = 1 << 20
"""Elements of the logits that are looked at at a time: no second tensor of their size is made."""


Over = Literal["max", "mean"] | float
"""Which statistic of the samples counts: the largest, the mean, or a quantile in (0, 1]."""


@dataclass(slots=True)
class Spreads:
    """Collects the spreads of the samples of one step, head by head and forward by forward.

    Attributes:
        every: whether samples without a gradient count too.
        values: spreads in nats, one flat tensor for each head.
        active: which of them count.
    """

    every: bool = False
    values: list[Tensor] = field(default_factory=list)
    active: list[Tensor] = field(default_factory=list)

    def add(self, output: Output, value: Tensor, tangent: Tensor) -> None:
        """Add the samples of a head: the output ``z`` and ``J p``, as the model returns them."""
        head = head_of(output)
        value, tangent = head.read(value), head.read(tangent)
        self._add(output, _spreads(value, tangent, _formula(head)), value)

    def add_difference(self, output: Output, value: Tensor, moved: Tensor, unit: float) -> None:
        """Add the samples of a head whose ``J p`` is ``(moved - value) / unit``."""
        head = head_of(output)
        rows, others = (torch.atleast_2d(head.read(logits)).flatten(0, -2) for logits in (value, moved))
        few = max(1, _CHUNK // max(1, rows.shape[-1]))
        pieces = []
        for row, other in zip(rows.split(few), others.split(few), strict=True):
            change = other - row
            piece = whole(spread(change, head=_formula(head)))
            # inf - inf is nan: only then is there a masked class to look for
            finite = bool(torch.isfinite(piece).all())
            pieces.append(piece if finite else _spreads(row, change, _formula(head)))
        value = head.read(value)
        self._add(output, torch.cat(pieces).view(value.shape[:-1]) / unit, value)

    def _add(self, output: Output, spreads: Tensor, value: Tensor) -> None:
        self.values.append(spreads.flatten())
        active = torch.ones_like(spreads, dtype=torch.bool) if self.every else active_rows(output, value)
        self.active.append(active.flatten())

    @property
    def empty(self) -> bool:
        """Whether there is no sample at all."""
        return not any(values.numel() for values in self.values)

    def counted(self) -> Tensor:
        """Return the spreads that count: all of them if no sample has a gradient.

        Raises:
            MeasurementError: if there is no sample at all.
        """
        spreads = torch.cat([values.to(self.values[0]) for values in self.values])
        active = torch.cat([rows.to(self.active[0].device) for rows in self.active])
        counted = spreads[active] if bool(active.any()) else spreads
        if not counted.numel():
            raise NothingToMeasureError(
                "the recorded forward holds no samples (an empty batch): nothing to measure r on"
            )
        return counted

    def statistic(self, over: Over) -> float:
        """Return the largest spread, the mean, or a quantile rounded up to an actual sample; nan if one is nan."""
        counted = self.counted()
        if over == "mean":
            return float(counted.mean(dtype=torch.float64))
        if over in ("max", 1.0):
            return float(counted.max())  # max and not sort: it propagates nan
        rank = max(1, math.ceil(float(over) * counted.numel()))
        return float(counted.kthvalue(rank).values) if bool(torch.isfinite(counted).all()) else float(counted.max())


def head_of(output: Output) -> Head:
    """Return how the loss reads an output; one that nobody has resolved yet is read as logits."""
    return output.head or Head(output.path)


def _formula(head: Head) -> Formula:
    return "sigmoid" if head.kind == "sigmoid" else "softmax"


def _spreads(value: Tensor, tangent: Tensor, formula: Formula) -> Tensor:
    if value.numel() and bool(whole(value.amin()) == -math.inf):
        # A class masked by a logit of -inf has weight exp(z) = 0 and no part in the sum F: it copies a live class.
        dead = value == -math.inf
        alive = tangent.masked_fill(dead, -math.inf).amax(-1, keepdim=True)
        tangent = torch.where(dead, alive, tangent)
    return whole(spread(tangent, head=formula))


def active_rows(output: Output, value: Tensor) -> Tensor:
    """Return which samples count: those with a gradient, and those whose gradient may have underflowed to zero.

    Args:
        output: what backward showed of it.
        value: its logits as the loss reads them, shape ``(*samples, classes)``.
    """
    rows = output.rows()
    if rows is None or rows.shape != value.shape[:-1]:
        return torch.ones(value.shape[:-1], dtype=torch.bool, device=value.device)
    active = rows.to(value.device)
    if bool(active.all()) or not output.active:
        return active
    limits, formula = torch.finfo(output.max_logits.dtype), _formula(head_of(output))
    # P - 1 rounds to zero once exp(-z) < eps (one sigmoid), all of P - onehot once exp(-gap) < tiny (softmax).
    smallest = limits.eps if formula == "sigmoid" else limits.tiny
    return active | (_spreads(value, value, formula) > -math.log(smallest))
