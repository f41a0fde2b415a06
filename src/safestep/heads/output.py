"""One output of a forward, and what backward showed of it: whether it was reached, its rows, and its gradient."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from safestep.distributed.dtensor import whole
from safestep.heads.head import Evidence, Head
from safestep.heads.places import Path

_REPEATED = {torch.float64: 1e-6, torch.float32: 1e-3}
_ROUNDINGS = 8.0
"""Roundings of two gradients up to which their difference is nothing."""
_REPEATED_ROUGHLY = 0.1
"""Distance, relative to the larger of 1 and the largest value, up to which a replay's output is that of training;
the latter for reduced precision."""


@dataclass(eq=False, slots=True)
class Output:
    """A floating-point output of a forward. Nothing of its size is copied.

    Attributes:
        path: where it lies in what the model returned.
        shape: of the output.
        max_logits: the largest value along its last dimension, to tell whether a replay repeats the forward.
        rough: whether it was computed in less precision than its type says.
        reached: whether backward came here.
        active: which samples have a gradient, for each dimension that may hold the classes, without that dimension.
            Ignored labels and padding have rows of exact zeros.
        size: ``||dL/dz||_1 / 2``, a 0-d tensor; None where the gradient was not seen.
        gradient: dL/dz by reference, where the radius wants it; else None. Of an output whose gradients were stored by
            one backward and handed to the caller by another, that of the former.
        value: the output itself, by reference, where it is wanted; else None.
        version: the version counter of ``value``.
        lent: whether ``value`` is held only until its gradient has been looked at.
        taped: whether it is held only for the tape.
        evidence: what each gradient showed of the loss, where somebody looked.
        head: how the loss reads it; None where it does not read it as logits.
        labelled: which samples have a label, where the gradient was not seen and labels are among the arguments.
        apart: whether it is none of those that the user has named by ``logits=``.
        source: the output that it is a transposition of, and the permutation of dimensions that leads back; None for
            most.
        turned: what transpositions of it have brought to its gradient in the backward that is running.
    """

    path: Path
    shape: torch.Size
    max_logits: Tensor
    rough: bool = False
    reached: bool = False
    active: dict[int, Tensor] = field(default_factory=dict)
    size: Tensor | None = None
    gradient: Tensor | None = None
    value: Tensor | None = None
    version: int = 0
    lent: bool = False
    taped: bool = False
    evidence: list[Evidence] = field(default_factory=list)
    head: Head | None = None
    labelled: Tensor | None = None
    apart: bool = False
    source: tuple[Output, tuple[int, ...]] | None = None
    turned: list[Tensor] = field(default_factory=list)

    def own(self, gradient: Tensor) -> Tensor:
        """Return the part of a gradient that the loss brought here itself.

        Contrastive models return ``z`` and ``z.T``, and take a softmax over the rows of each: the gradient at ``z``
        holds both.
        """
        if self.source is not None:
            source, back = self.source
            source.turned.append(gradient.permute(back))
        for other in self.turned:
            own, size = gradient - other.to(gradient.dtype), other.abs().to(gradient.dtype)
            rounding = _ROUNDINGS * torch.finfo(own.dtype).eps * size
            gradient = torch.where(own.abs() <= rounding, 0.0, own)  # rows without a gradient have none left
        self.turned = []
        return gradient

    def tell(self, gradient: Tensor, axes: tuple[int, ...], *, look: bool) -> None:
        """Take in a gradient that backward brought here.

        Args:
            gradient: dL/d(output).
            axes: the dimensions that may hold the classes.
            look: whether to gather evidence of what the loss is.
        """
        total = None
        for axis in axes:
            rows = whole(torch.linalg.vector_norm(gradient, 1, dim=axis))  # a reduction: no second tensor of that size
            active, total = rows != 0, rows.sum()
            self.active[axis] = active if axis not in self.active else self.active[axis] | active
        if total is not None:
            self.size = total / 2 if self.size is None else self.size + total / 2
        if look:
            precision = torch.finfo(torch.bfloat16).eps if self.rough else 0.0
            self.evidence.append(Evidence.of(self.kept(), gradient, axes, precision))
        if self.lent:
            self.value = None

    def unlearn(self) -> None:
        """Forget what backward showed, once the gradients that it left are gone."""
        self.reached, self.active, self.size, self.gradient, self.evidence = False, {}, None, None, []

    def kept(self) -> Tensor | None:
        """Return the output of the training forward if it was kept and nothing has been written to it since."""
        return self.value if self.value is not None and self.value._version == self.version else None

    def rows(self) -> Tensor | None:
        """Return which samples have a gradient, shape ``(*samples,)``; None where that was not seen."""
        return self.labelled if self.head is None else self.active.get(self.head.axis, self.labelled)

    def repeated_by(self, value: Tensor) -> bool:
        """Return whether this output of a replay at the same parameters is that of the recorded forward."""
        if not self.shape:  # made for measuring only: there is nothing to compare with
            return True
        max_logits = max_logits_of(value)
        if max_logits.shape != self.max_logits.shape:
            return False
        if not max_logits.numel():
            return True
        tolerance = max(_REPEATED.get(t.dtype, _REPEATED_ROUGHLY) for t in (max_logits, self.max_logits))
        if self.rough:
            tolerance = _REPEATED_ROUGHLY
        # not (>) and not (<=): where a value is nan, that the replay differs is not the news
        return not bool(
            (max_logits - self.max_logits).abs().amax() > tolerance * self.max_logits.abs().amax().clamp(min=1.0)
        )


def max_logits_of(value: Tensor) -> Tensor:
    """Return the largest value along the last dimension."""
    return whole(value.amax(-1)) if value.shape[-1] else whole(value.sum(-1))


def axes_of(output: Output) -> tuple[int, ...]:
    """Return the dimensions of an output that may hold the classes, the likeliest first: the last, then the second."""
    return (-1, 1) if len(output.shape) > 2 else (-1,)
