"""A head, and whether the gradient at an output shows a softmax, sigmoids or another loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from safestep.distributed.dtensor import whole
from safestep.formulas.found_entries import entry_effort
from safestep.formulas.logit_gradient import sigmoid_factor, softmax_factor
from safestep.heads.places import Path, named, places

Kind = Literal["softmax", "sigmoid", "other"]
"""What a loss makes of the values: one softmax over the classes, a sigmoid of each, or neither, as it seems."""

_BALANCED = 1e-3
"""Rows of a softmax loss's dL/dz sum to zero; a quotient of sums above this, and two roundings, is no softmax."""
_NEARLY = 0.1
"""Up to this it is softmax all the same if one with plain labels explains it (a small penalty on the logits, fp16's
underflow); squared errors of what was a classifier come as near."""
_NOISE = 64.0
"""Roundings of a mean loss's gradient below which it tells nothing: the labels are the predictions."""
_ROWS = 32
"""Rows that are looked at: those with the largest gradients, or, later on, some that are spread evenly."""
_FEWEST, _SURE = 4, 2e-3
"""How many entries are needed to tell sigmoids from other losses, and ``|P - y|`` below which rounding tells."""
_APART, _WIDE = 1e-2, 4.0
"""How far single logits have to lie apart to tell, and how far for a factor: any loss of nearly equal values looks like
sigmoids of some factor."""
_ENTRIES = 256
"""Rows that are looked at where each is one logit, from the largest gradient to the smallest."""
_NORMALISED = 1e-2
"""log(sum exp z) of log-probabilities is zero up to rounding."""


@dataclass(frozen=True, slots=True)
class Head:
    """How the loss reads an output.

    Attributes:
        path: where it lies in the model's output.
        kind: what the loss makes of it.
        axis: the dimension of the classes.
        factor: what the loss multiplies it by before it takes probabilities (``1 / T`` for a temperature T).
        balanced: whether rows of dL/dz sum to zero, as they do for logits and not for log-probabilities.
        settled: whether the gradient has shown all this; else it is assumed.
        plain: whether the factor is known; no factor can be read off soft labels.
    """

    path: Path
    kind: Kind = "softmax"
    axis: int = -1
    factor: float = 1.0
    balanced: bool = True
    settled: bool = False
    plain: bool = True

    def read(self, tensor: Tensor) -> Tensor:
        """Return the logits as the loss reads them, classes last: a view, or multiplied by the factor."""
        moved = tensor if self.axis == -1 else tensor.movedim(self.axis, -1)
        return moved if self.factor == 1.0 else moved * self.factor

    def read_gradient(self, gradient: Tensor) -> Tensor:
        """Return the gradient at `read`'s logits from that at the output."""
        moved = gradient if self.axis == -1 else gradient.movedim(self.axis, -1)
        return moved if self.factor == 1.0 else moved / self.factor

    def __str__(self) -> str:
        """Return it in words."""
        axis = "" if self.axis == -1 else f", classes in dimension {self.axis}"
        factor = "" if self.factor == 1.0 else f" times {self.factor:.4g}"
        return f"{named(self.path)}{factor} ({self.kind}{axis})"

    def as_state(self) -> list[Any]:
        """Return plain data, for a checkpoint."""
        return [list(self.path), self.kind, self.axis, self.factor, self.balanced, self.settled, self.plain]

    @classmethod
    def from_state(cls, state: list[Any]) -> Head:
        """Return the head of a checkpoint."""
        return cls(tuple(state[0]), *state[1:])


@dataclass(slots=True)
class Evidence:
    """What the gradient at one output showed, gathered in backward without reading the device.

    Attributes:
        sums: for each dimension that may hold the classes, ``sum |sum_k G_k|``.
        total: ``||G||_1``.
        rows: for each of them some rows of the output and of its gradient, ``(z, G)``.
        precision: the relative rounding of the arithmetic.
    """

    total: Tensor
    sums: dict[int, Tensor] = field(default_factory=dict)
    rows: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    precision: float = 0.0

    @classmethod
    def of(cls, value: Tensor | None, gradient: Tensor, axes: tuple[int, ...], precision: float) -> Evidence:
        """Gather what a gradient tells.

        Args:
            value: the output; None where it is not at hand, so that only sums can be determined.
            gradient: dL/d(value).
            axes: the dimensions that may hold the classes.
            precision: the relative rounding of the arithmetic.
        """
        gradient = whole(gradient)
        found = cls(
            gradient.abs().sum(dtype=_wide(gradient)), precision=max(precision, torch.finfo(gradient.dtype).eps)
        )
        value = None if value is None else whole(value)
        for axis in axes:
            found.sums[axis] = gradient.sum(axis, dtype=_wide(gradient)).abs().sum()
            if value is not None and value.shape == gradient.shape and (axis == -1 or value.shape[axis] > 1):
                rows = [torch.atleast_2d(tensor).movedim(axis, -1) for tensor in (value, gradient)]
                sizes = torch.linalg.vector_norm(rows[1], 1, dim=-1)
                if value.shape[axis] > 1:
                    index = torch.topk(sizes.flatten(), min(_ROWS, sizes.numel())).indices
                else:  # of each but one number, which tells little, and the largest are alike
                    index = sizes.flatten().argsort(descending=True)[:: max(1, sizes.numel() // _ENTRIES)]
                place = places(index, sizes.shape)
                found.rows[axis] = rows[0][place], rows[1][place]
        return found

    def head(self, path: Path, loss_scale: float) -> Head | None:
        """Return how the loss reads the output; None if the gradient tells nothing (it is zero, noise, or not finite).

        Args:
            path: where the output lies.
            loss_scale: what a gradient scaler multiplied the loss by.
        """
        total = float(self.total) / loss_scale
        single = bool(self.rows) and all(z.shape[-1] == 1 for z, _ in self.rows.values())
        if not math.isfinite(total) or (total <= _NOISE * self.precision and not single):
            return None
        for axis, off in self.sums.items():
            unbalanced = float(off) / float(self.total)
            if axis in self.rows and self.rows[axis][0].shape[-1] == 1:
                continue
            if unbalanced <= max(_BALANCED, 2.0 * self.precision):
                return self._softmax(path, axis)
            if unbalanced <= _NEARLY and axis in self.rows and (nearly := self._softmax(path, axis)).plain:
                return nearly if nearly.settled else None
        for axis, (z, gradient) in self.rows.items():
            if z.shape[-1] > 1 and _log_probabilities(z, gradient):
                return Head(path, "softmax", axis, balanced=False, settled=True)
        return self._sigmoids(path, next(iter(self.sums)))

    def _sigmoids(self, path: Path, axis: int) -> Head:
        if axis not in self.rows:
            return Head(path, "other", balanced=False, settled=True)
        if self.rows[axis][0].shape[-1] == 1:
            return self._one_logit(path, *self.rows[axis])
        found = sigmoid_factor(*self.rows[axis], self.precision)
        if found is not None:
            return Head(path, "sigmoid", -1, found.value, balanced=False, settled=found.known)
        return Head(path, "other", balanced=False, settled=int(_clear(*self.rows[axis]).sum()) >= _FEWEST)

    def _one_logit(self, path: Path, z: Tensor, gradient: Tensor) -> Head:
        """Return how the loss reads one logit a sample; not settled if these are too few, or too alike, to tell."""
        clear = _clear(z, gradient)
        z, gradient = z[clear].double().unsqueeze(-1), gradient[clear].double().unsqueeze(-1)
        apart = float(z.max() - z.min()) if len(z) >= _FEWEST else 0.0
        if apart < _APART:
            return Head(path, "other", balanced=False)
        # The loss has read these very logits, and its gradient was rounded once.
        found = sigmoid_factor(z, gradient, self.precision / 8)
        if found is None:  # where the loss itself was computed in less, it is off by more
            settled = sigmoid_factor(z, gradient, 4 * self.precision) is None
            return Head(path, "other", balanced=False, settled=settled)
        told = found.known and (found.value == 1.0 or found.value * apart >= _WIDE)
        if not told:
            return Head(path, "other", balanced=False)
        return Head(path, "sigmoid", -1, found.value, balanced=False, settled=True)

    def _softmax(self, path: Path, axis: int) -> Head:
        if axis not in self.rows:
            return Head(path, "softmax", axis)
        found = softmax_factor(*self.rows[axis], self.precision)
        if found is None:
            return Head(path, "softmax", axis, settled=True, plain=False)
        return Head(path, "softmax", axis, found.value, settled=found.known)

    @property
    def one_label(self) -> bool:
        """Whether rows have the gradient of a softmax over one label: negative in one entry alone."""
        gradient = next((gradient for _, gradient in self.rows.values() if gradient.shape[-1] > 1), None)
        if gradient is None:
            return False
        trained = gradient[gradient.abs().sum(-1) > 0]
        return bool(((trained < 0).sum(-1) == 1).float().mean() > 0.9)


def _log_probabilities(z: Tensor, gradient: Tensor) -> bool:
    """Return whether rows are log-probabilities under a negative log-likelihood: each pulls at its label alone."""
    normalised = torch.logsumexp(z.float(), -1).abs().max() < _NORMALISED
    return bool(normalised) and bool((gradient <= 0).all())


def _clear(z: Tensor, gradient: Tensor) -> Tensor:
    """Return which entries have a gradient that would tell of sigmoids: labels not so sure that it is rounding."""
    return (gradient != 0) & torch.isfinite(z) & (entry_effort(z.double(), gradient.double()) > _SURE)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
