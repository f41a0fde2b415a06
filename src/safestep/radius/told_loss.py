"""The loss of a curvature radius: as it was named; or found from the gradients at the logits, and remembered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import Any, Protocol
from zlib import crc32

import torch
from torch import Tensor

from safestep.distributed.consensus import Peers
from safestep.distributed.dtensor import whole
from safestep.errors import LossMismatchError
from safestep.formulas.finding import ALIKE, FoundLoss, Refused, simplest
from safestep.formulas.found_loss import found_loss
from safestep.formulas.found_weights import found_bend
from safestep.heads.model_heads import Wanted
from safestep.heads.output import Output
from safestep.heads.places import Path, named
from safestep.radius.losses import LOSSES, LossName, LossTerms, Reduction
from safestep.radius.spreads import head_of
from safestep.recording.forwards import Forwards

_KINDS = tuple(LOSSES)
_NUMBERS = 4093
"""Squares of smaller numbers are exact in float32, in which ranks hand them on."""
_WEIGHTS, _LABELS = ("one", "classes", "rows"), ("hard", "mixed", "soft", "log")

_REFUSED = (
    "the loss cannot be told from its gradient at {seen}: saw {reason}\n"
    "expected: a cross-entropy of a softmax or of sigmoids, or a squared error of labels with few values\n"
    "to do: name it. Squared errors: safestep.attach(model, optimizer, radius=safestep.CurvatureRadius('mse')) for the "
    "mean over all entries, ('half_mse') for ||z - y||^2 / 2 over the samples; else ('cross_entropy'), ('bce'), or "
    "HessianRadius(closure) for any other"
)
_CHANGED = (
    "the gradient at {seen} is not any more that of the loss that was found ({found}): saw {reason}. It may be another "
    "loss, or one with a penalty on the logits, which is small beside it no more. r goes on as that of the loss found; "
    "to choose another: CurvatureRadius(loss) or HessianRadius(closure)"
)
_APART = "the ranks found different losses ({one} and {other}): name the one that is meant, CurvatureRadius(loss)"


class Given(Protocol):
    """What a user says of the loss, see `safestep.radius.curvature.CurvatureRadius`; None is to be found."""

    @property
    def loss(self) -> LossName | None: ...  # noqa: D102
    @property
    def reduction(self) -> Reduction | None: ...  # noqa: D102
    @property
    def scale(self) -> float | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Named:
    """A loss by name, with its reduction and scale."""

    loss: LossName
    reduction: Reduction = "mean"
    scale: float = 1.0


class ToldLoss:
    """The loss of one step, output by output: named, or what its gradients show, or what earlier ones showed.

    Args:
        given: what the user says.
        state: what earlier steps showed, see `as_state`.
        look: whether to look at this step's gradients again.

    Attributes:
        known: what was found, by output.
        doubts: what a user should know of what was seen.
    """

    def __init__(self, given: Given, state: list[Any] | None, *, look: bool) -> None:
        self.known = {tuple(path): FoundLoss(*found) for path, found in state or []}
        self.doubts: list[str] = []
        self._given, self._look = given, look
        self._seen: dict[Path, list[FoundLoss]] = {}

    def wanted(self, forwards: Forwards) -> Wanted:
        """Return which outputs count: those of the loss that is named, or else of what the gradients show."""
        if self._given.loss is not None:
            return LOSSES[self._given.loss].wanted
        outputs = [output for forward in forwards.kept for output in forward.outputs if not output.apart]
        for output in outputs:
            forwards.known.learn(output, forwards.loss_scale)
        heads = (forwards.known.known.get(output.path) for output in outputs if output.reached)
        kinds = {head.kind for head in heads if head is not None}
        if "softmax" in kinds:
            return "cross_entropy"
        if kinds or all(output.shape[-1:] == (1,) for output in outputs):
            return "sigmoid" if "sigmoid" in kinds else "any"
        return LOSSES[next(iter(self.known.values())).loss].wanted if self.known else "cross_entropy"

    def even(self, paths: Iterable[Path]) -> bool:
        """Return whether the loss of each of these outputs is known, and all of its rows have one weight."""
        return self._given.loss is not None or all(path in self.known and self.known[path].uniform for path in paths)

    def terms(self, output: Output, value: Tensor, gradient: Tensor, loss_scale: float) -> LossTerms:
        """Return how the loss of an output bends, after a look at its gradient where that is due.

        Args:
            output: of a forward.
            value: ``z``, as the model returned it.
            gradient: dL/dz, likewise.
            loss_scale: what a gradient scaler multiplied the loss by.

        Raises:
            LossMismatchError: if the gradient is that of no loss that can be found.
        """
        if self._given.loss is not None:
            return LOSSES[self._given.loss]
        known = self.known.get(output.path)
        if (known is None or self._look) and value.numel():
            head, kind = head_of(output), torch.finfo(torch.bfloat16).eps if output.rough else 0.0
            z, g = (whole(tensor.detach()) for tensor in (head.read(value), head.read_gradient(gradient)))
            found = found_loss(_flat(z), _flat(g), kind, loss_scale)
            if isinstance(found, FoundLoss):
                self._seen.setdefault(output.path, []).append(found)
            elif known is not None and found.final and known.labels != "soft":  # those come close to what is predicted
                self.doubts.append(_CHANGED.format(seen=named(output.path), found=known, reason=found.reason))
            elif known is None and not self._seen.get(output.path):
                self._assume(output, found)
        seen = self._seen.get(output.path)
        now = seen[0] if seen else known
        if now is None or now.uniform:
            return LOSSES[self._assumed(output) if now is None else now.loss]
        weighted = partial(found_bend, found=now, loss_scale=loss_scale)
        return replace(LOSSES[now.loss], weighted=weighted, likely=None)

    def at(self, path: Path, parts: float = 1.0) -> Named:
        """Return the loss of an output, with the reduction and scale that its `terms` go by.

        Args:
            path: of the output.
            parts: over how many forwards the step went, for each that was looked at.
        """
        given = self._given
        if given.loss is not None:
            return Named(given.loss, given.reduction or "mean", 1.0 if given.scale is None else given.scale)
        if seen := self._seen.pop(path, None):
            self.known[path] = _since(_together(seen, parts), self.known.get(path))
        if (found := self.known.get(path)) is None:
            return Named("cross_entropy", given.reduction or "mean", 1.0 if given.scale is None else given.scale)
        if not found.uniform:
            return Named(found.loss, "sum")
        if given.reduction is None and given.scale is None:
            return Named(found.loss, found.reduction, found.scale)
        return Named(found.loss, given.reduction or "mean", 1.0 if given.scale is None else given.scale)

    @property
    def main(self) -> Named:
        """The loss of the first output."""
        return self.at(next(iter(self.known), ()))

    def signature(self) -> tuple[float, float]:
        """Return a number for what is known, and its square, whose means over the ranks tell whether all know it."""
        known = [(str(path), one.loss, str(one), one.reduction, one.scale) for path, one in self.known.items()]
        number = float(crc32(repr(sorted(known)).encode()) % _NUMBERS) if known else 0.0
        return number, number * number

    def agree(self, peers: Peers) -> None:
        """Take what all ranks found, where they found different things.

        Raises:
            LossMismatchError: if they found different losses.
        """
        count = len(self.known)
        most, least = peers.maxima([float(count), -float(count)])
        if most != -least:
            return  # an empty batch: that rank finds it later
        for path in sorted(self.known, key=str):
            one = self.known[path]
            kind, mean = float(_KINDS.index(one.loss)), float(one.reduction == "mean")
            weights, labels = float(_WEIGHTS.index(one.weights)), float(_LABELS.index(one.labels))
            numbers = [kind, -kind, weights, labels, mean, one.scale, one.weight, one.total, one.smoothing]
            high, low, weights, labels, mean, scale, weight, total, smoothing = peers.maxima(numbers)
            if high != -low:
                raise LossMismatchError(_APART.format(one=_KINDS[int(-low)], other=_KINDS[int(high)]))
            self.known[path] = FoundLoss(
                one.loss,
                "mean" if mean else "sum",
                scale,
                weight,
                total,
                _WEIGHTS[int(weights)],  # type: ignore[arg-type]
                _LABELS[int(labels)],  # type: ignore[arg-type]
                smoothing,
            )

    def as_state(self) -> list[Any]:
        """Return plain data, for a checkpoint."""
        return [[list(path), list(astuple(found))] for path, found in self.known.items()]

    def _assume(self, output: Output, refused: Refused) -> None:
        """Let a gradient that tells nothing yet pass where it is known at least which kind of head it is."""
        if refused.final or head_of(output).kind == "other":
            raise LossMismatchError(_REFUSED.format(seen=named(output.path), reason=refused.reason))

    @staticmethod
    def _assumed(output: Output) -> LossName:
        return "bce" if head_of(output).kind == "sigmoid" else "cross_entropy"


def words(state: Iterable[Any] | None) -> str:
    """Return in words what was found."""
    found = [(tuple(path), FoundLoss(*one)) for path, one in state or []]
    return "; ".join(str(one) if len(found) == 1 else f"{named(path)}: {one}" for path, one in found)


def _flat(tensor: Tensor) -> Tensor:
    return tensor.unsqueeze(-1) if tensor.ndim < 2 else tensor.flatten(0, -2)


def _together(seen: list[FoundLoss], parts: float) -> FoundLoss:
    """Return what was found on all forwards of a step: means of micro-batches add up."""
    first = seen[0]
    same = [one for one in seen if one.loss == first.loss]
    total, count = (
        parts * sum(numbers) for numbers in zip(*((o.total, o.total / o.weight) for o in same), strict=True)
    )
    if len(same) == 1 and parts == 1.0:
        return first
    number = max(1, round(count))
    reduction, scale = simplest(total / number, {"mean": (number, number), "sum": (1, 1)}, ALIKE)
    weights = max((one.weights for one in same), key=_WEIGHTS.index)
    return replace(first, reduction=reduction, scale=scale, total=total, weights=weights)  # type: ignore[arg-type]


def _since(now: FoundLoss, before: FoundLoss | None) -> FoundLoss:
    """Return what explains two looks: what was found first, unless the later one says more than its rounding.

    A weight that stayed, though the number of rows did not, is that of a sum.
    """
    if before is None or now.loss != before.loss:
        return now
    if before.labels != "soft" and now.labels == "soft":  # any gradient has soft labels; a penalty looks like them
        return before
    if before.smoothing and not now.smoothing and now.labels == before.labels:  # seen less well
        return before
    if not (now.uniform and before.uniform):
        return now
    if now.reduction == before.reduction and abs(now.scale / before.scale - 1.0) <= ALIKE:
        return before
    same = abs(now.weight / before.weight - 1.0) <= ALIKE
    moved = abs(now.total / before.total - 1.0) > ALIKE
    return (
        replace(now, reduction="sum", scale=float(f"{now.weight:.5g}")) if same and moved and now.scale != 1.0 else now
    )
