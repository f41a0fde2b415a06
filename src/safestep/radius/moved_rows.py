"""What a step does to each row: the spread of its logits' change, and how much the loss bends along it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from safestep.distributed.dtensor import whole
from safestep.formulas.quadratic_ratio import sigmoid_bend, softmax_bend, square_bend
from safestep.formulas.sampling import Estimate, ratio_of_sums
from safestep.heads.head import Kind
from safestep.heads.output import Output
from safestep.heads.places import Path
from safestep.jvp.replay import without_autocast
from safestep.radius.spreads import Spreads, head_of
from safestep.recording.forward import Forward


@dataclass(slots=True)
class MovedRows(Spreads):
    """Collects, beside the spreads, how much the loss of every entry (token) bends along the step.

    Attributes:
        bends: ``Var_P(a)`` of a softmax, ``sum P (1 - P) a^2`` of sigmoids, ``||a||^2`` of other outputs; a flat tensor
            for each head.
        heads: whose they are.
    """

    bends: list[Tensor] = field(default_factory=list)
    heads: list[Output] = field(default_factory=list)

    def add_difference(self, output: Output, value: Tensor, moved: Tensor, unit: float) -> None:
        """Add the entries of a head whose ``J p`` is ``(moved - value) / unit``."""
        Spreads.add_difference(self, output, value, moved, unit)  # super() does not see through slots
        head = head_of(output)
        with without_autocast(value.device.type):
            logits, others = (_wide(whole(torch.atleast_2d(head.read(tensor)))) for tensor in (value, moved))
            change = torch.where(torch.isfinite(logits), others - logits, 0.0)  # a masked class does not move
            self.bends.append((_bend(head.kind, logits, change) / unit**2).flatten())
        self.heads.append(output)

    def mean(
        self,
        values: Sequence[Tensor],
        parts: Sequence[Forward],
        share: float,
        factor: Callable[[Output], float] = lambda _: 1.0,
    ) -> Estimate:
        """Return the mean over the entries that count, added up over the heads of a forward.

        Args:
            values: of every entry, in the order of `bends`.
            parts: the forwards whose rows these are, in the order in which they were added.
            share: the part of the batch's rows that these are.
            factor: on the mean of each head.
        """
        begins, first = dict[int, int](), 0
        for part in parts:
            begins |= {id(output): first for output in part.heads}
            first += max((output.shape[0] if output.shape else 1 for output in part.heads), default=0)
        by_path: dict[Path, list[int]] = {}
        for index, output in enumerate(self.heads):
            by_path.setdefault(output.path, []).append(index)
        found = []
        for members in by_path.values():
            weights = torch.cat([self.active[i].to(values[members[0]]) for i in members])
            weights = weights if bool(weights.any()) else torch.ones_like(weights)
            rows = torch.cat([begins[id(self.heads[i])] + _rows(values[i], self.heads[i]) for i in members])
            one = ratio_of_sums(torch.cat([values[i] for i in members]), weights, rows, share)
            found.append(torch.tensor(one, dtype=torch.float64, device="cpu") * factor(self.heads[members[0]]))
        # heads of the same rows err together: their errors add up at worst
        return Estimate(*torch.stack(found).sum(0).tolist())


def _bend(kind: Kind, logits: Tensor, change: Tensor) -> Tensor:
    if kind == "other":
        return square_bend(change)
    return sigmoid_bend(logits, change) if kind == "sigmoid" else softmax_bend(logits, change)


def _rows(values: Tensor, output: Output) -> Tensor:
    count = output.shape[0] if len(output.shape) > 1 else 1
    each = torch.arange(max(1, count), device=values.device)
    return each.repeat_interleave(max(1, values.numel() // max(1, count)))


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
