"""What was found of a loss (`FoundLoss`), or why nothing was (`Refused`), and the simplest reduction and scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

ALIKE = 0.02
"""Weights this close to each other are one: r is then as close, and a small penalty on the logits does as much."""
_SIMPLE = 100
"""A factor is simple if it, or one over it, is a whole number up to this, or has two digits."""
_EXACT = 1e-3
"""A factor this close to a simple one is that."""
_TRUSTED = 200.0
"""Roundings above which a difference P - y tells a weight to half a percent."""


@dataclass(frozen=True, slots=True)
class FoundLoss:
    """A loss that explains a gradient at the logits.

    Attributes:
        loss: its name, as `safestep.CurvatureRadius` has it.
        reduction: over what the simplest explanation takes it; ``"mean"`` over rows with a gradient (cross-entropy),
            over all entries (bce, mse) or all rows (half_mse).
        scale: what it is multiplied by then; 1 where that explains it. With one row, or entry, mean and sum are the
            same, and are called a mean.
        weight: the weight of a row, or entry: the loss bends by ``weight * Var_P(a)`` in it, or what the loss has
            instead. The median where they differ.
        total: the sum of the weights of all.
        weights: whether all have ``"one"`` weight; or one for each of the ``"classes"``; or of the ``"rows"`` or
            entries.
        labels: ``"hard"``, ``"mixed"`` (of two classes, as mixup makes them), ``"soft"`` (any), of which only a least
            weight is known and the simplest is taken, or ``"log"``: the outputs are log-probabilities.
        smoothing: label smoothing.
    """

    loss: Literal["cross_entropy", "bce", "half_mse", "mse"]
    reduction: Literal["mean", "sum"]
    scale: float
    weight: float
    total: float
    weights: Literal["one", "classes", "rows"] = "one"
    labels: Literal["hard", "mixed", "soft", "log"] = "hard"
    smoothing: float = 0.0

    @property
    def uniform(self) -> bool:
        """Whether reduction and scale say all of the weights."""
        return self.weights == "one"

    def __str__(self) -> str:
        """Return it in words."""
        kinds = {"mixed": "labels of two classes", "soft": "soft labels", "log": "of log-probabilities"}
        weights = {"classes": "weights of the classes", "rows": "weights of the samples"}
        more = (
            kinds.get(self.labels, ""),
            f"label smoothing {self.smoothing:.3g}" if self.smoothing else "",
            weights.get(self.weights, ""),
        )
        # weights are read off every gradient, so that no scale is used
        scale = "" if self.scale == 1.0 or not self.uniform else f" times {self.scale:.4g}"
        said = "".join(f", {text}" for text in more if text)
        return f"{self.loss}, {self.reduction if self.uniform else 'weighted'}{scale}{said}"


@dataclass(frozen=True, slots=True)
class Refused:
    """That no loss explains a gradient.

    Attributes:
        reason: what was seen, for a user.
        final: whether more rows would not help.
    """

    reason: str
    final: bool = True


def simplest(weight: float, counts: dict[str, tuple[int, int]], tolerance: float) -> tuple[str, float]:
    """Return which reduction, and times what, explains a weight most simply: times 1, else a round factor.

    Args:
        weight: of a row or entry.
        counts: for each reduction, the preferred first, over how many it goes, from least to most (those whose gradient
            may have underflowed are of one or the other).
        tolerance: the relative error of the weight.
    """
    for name, (low, high) in counts.items():
        if weight * low <= 1.0 + tolerance and weight * high >= 1.0 - tolerance:
            return name, 1.0
    name, (low, _) = next(iter(counts.items()))
    # a mean with a weight of 1 and more would be multiplied by as many as there are rows
    for other in reversed(counts) if weight >= 1.0 else counts:
        if (plain := _plain(weight * counts[other][0], digits=other == name)) is not None:
            return other, plain
    return name, float(f"{weight * low:.5g}")  # its other digits are rounding


def _plain(factor: float, *, digits: bool) -> float | None:
    """Return the simple number that a factor is; None if it is none."""
    candidates = [float(round(factor)), 1.0 / max(1, round(1.0 / factor))]
    if digits:
        candidates.append(round(factor, 1 - math.floor(math.log10(factor))))
    for plain in candidates:
        if 1.0 / _SIMPLE <= plain <= _SIMPLE and abs(factor / plain - 1.0) <= _EXACT:
            return plain
    return None


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a gradient, and how it rounds.

    Attributes:
        logits: ``z``, shape ``(rows, outputs)``, of rows that have a gradient.
        gradient: ``dL/dz`` of these, without the factor of a gradient scaler, in float32 or finer.
        known: how many rows have a gradient, in all.
        hidden: how many more may have one that underflowed.
        count: how many rows there are.
        rounding: relative, of logits or gradient.
        smallest: a gradient below this may have lost digits.
    """

    logits: Tensor
    gradient: Tensor
    known: int
    hidden: int
    count: int
    rounding: float
    smallest: float

    def trusted(self, effort: Tensor, sizes: Tensor) -> Tensor:
        """Return which weights ``size / effort`` are known well, see `trusted`; of these the best."""
        known = trusted(effort, sizes, self.logits, self.smallest)
        # where log P itself was rounded, P is off by as many roundings as log P is large
        best = known & (effort.clamp(min=1e-300).log().abs() * self.rounding <= ALIKE)
        return best if bool(best.any()) else known


def trusted(effort: Tensor, sizes: Tensor, logits: Tensor, smallest: float) -> Tensor:
    """Return which weights ``size / effort`` are known well: ``P - y`` cancels, and small numbers have fewer digits.

    Args:
        effort: what the gradient would be with weight 1.
        sizes: what it is.
        logits: whose type says how ``P - y`` rounds: differences are taken in float32 or finer.
        smallest: of the gradients.
    """
    cancels = torch.finfo(torch.float64 if logits.dtype == torch.float64 else torch.float32).eps
    return (effort > _TRUSTED * cancels) & (sizes > smallest)


def smallest(dtype: torch.dtype) -> float:
    """Return below what size a gradient of a type may have lost digits."""
    info = torch.finfo(dtype)
    return _TRUSTED * info.tiny * info.eps


def apart(weights: Tensor, groups: Tensor) -> float:
    """Return how far most weights lie from the median of their group, relative to it; nan if groups hold but one."""
    _, member, sizes = groups.unique(return_inverse=True, return_counts=True)
    order = weights.argsort()
    order = order[member[order].argsort(stable=True)]
    medians = weights[order][sizes.cumsum(0) - sizes + (sizes - 1) // 2]
    some = (sizes > 1)[member]
    if 2 * int(some.sum()) <= len(weights):
        return math.nan
    off = (weights / medians[member] - 1.0).abs()[some].sort().values
    return float(off[int(0.95 * (len(off) - 1))])
