"""The curvature radius: r = p.Gp / (-2 g.p), the quadratic model of the loss along the step on this batch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from safestep.errors import MeasurementError, SafestepWarning
from safestep.formulas.curvature import curvature_ratio
from safestep.forward import Forward, Seen
from safestep.radius.base import State, Wants
from safestep.radius.losses import LOSSES, Loss, LossName, Reduction, unbalanced
from safestep.radius.tangents import Tangents, check_inputs, check_recorded
from safestep.reading import Reading
from safestep.route import Route, as_state, from_state
from safestep.spreads import active_rows
from safestep.step import Step

_CHUNK = 1 << 20
"""Elements of the logits that are looked at at a time: no further tensor of their size is made."""
_TOO_MUCH = 1.5
"""Labels of any kind leave at most the gradient that hard ones would; beyond this factor it is another loss."""


@dataclass(frozen=True)
class CurvatureRadius:
    r"""Limits how far the quadratic model of the loss along the step climbs back.

    Equation:
        ``r = p.Gp / (-2 g.p)`` on the batch of this step, with the Gauss-Newton matrix ``G`` and the gradient ``g`` of
        the loss. ``r = 1/2`` is the length of an exact line search along ``p``; at ``r = 1`` the model has climbed
        back to where it started; plain SGD along an eigenvector of ``G`` has ``r = eta lambda / 2``. With ``a = J p``
        and the gradient ``dL/dz`` at the logits, ``g.p = sum (dL/dz) a``, and ``p.Gp`` is

        ==================  =====================================================
        cross_entropy       mean over samples of ``Var_P(a)``, ``P = softmax(z)``
        bce                 mean over entries of ``P (1 - P) a^2``, ``P = sigmoid(z)``
        half_mse            mean over samples of ``||a||^2``
        mse                 mean over entries of ``2 a^2``
        ==================  =====================================================

    Attributes:
        loss: which loss the loop minimises: ``"cross_entropy"`` of the logits in the last dimension (hard, soft or
            smoothed labels), ``"bce"`` of independent logits, ``"half_mse"`` for ``||z - y||^2 / (2 n)`` over n samples
            (all dimensions but the last), ``"mse"`` for the mean of ``(z - y)^2`` over all entries.
        reduction: ``"mean"``, over all samples of the step, several micro-batches together; or ``"sum"``. Whether the
            loop weighs micro-batches of different sizes by their samples or alike cannot be seen: the weights that
            bend more are taken, and such an r is not called exact.
        scale: the constant that the loop multiplies this loss by. For k micro-batches whose means are added and not
            divided by k it is k. A gradient scaler's factor does not count: it is found and taken out.

    Raises:
        ValueError: at construction, for an unknown option or a scale that is not positive.

    Example:
        >>> import torch, safestep
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> guard = safestep.attach(model, optimizer, radius=CurvatureRadius("half_mse"), policy=safestep.Watch())
        >>> x = torch.tensor([[2.0]])  # half_mse bends with lambda = 4
        >>> (model(x) - 1.0).square().sum().div(2).backward()
        >>> optimizer.step()
        >>> round(guard.last.ratio, 6)  # eta lambda / 2
        1.0

    Note:
        A step that goes uphill on its own batch, ``g.p >= 0``, has no length that is short enough: r is inf and a guard
        that acts holds the parameters (``"held"``) while the optimizer's state moves on. Where ``a = 0``, r = 0.

        The model is of the loss that is named here: penalties added to it and class weights are not in it. A gradient
        that no cross-entropy leaves is noticed at the first step; for squared errors nothing can be checked. ``G``
        leaves out how the logits themselves curve: it is exact for a model linear in its parameters, and elsewhere
        says what the linearised model would do. For any other loss, or the Hessian itself, use `HessianRadius`.

        It holds the gradient at the logits, a tensor of their size, from backward to the step.

    Reference:
        M. Blanco Valentin, ENABOL / kappa, experiment 000, whose throttle keeps ``eta lambda`` below 2; J. Martens,
        "New insights and perspectives on the natural gradient method", JMLR 21 (2020), for ``G``.
    """

    loss: LossName = "cross_entropy"
    reduction: Reduction = "mean"
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the options."""
        for name, allowed in {"loss": get_args(LossName), "reduction": get_args(Reduction)}.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name}={getattr(self, name)!r}: expected one of {', '.join(map(repr, allowed))}; for another "
                    "loss use HessianRadius(closure)"
                )
        if not 0.0 < self.scale < math.inf:
            raise ValueError(f"scale={self.scale!r}: expected the positive number that the loss is multiplied by")

    @property
    def wants(self) -> Wants:
        """The recorded training pass, and the gradient at its logits."""
        return Wants(tape=True, gradient=True)

    def measure(self, step: Step, seen: Seen, state: State) -> tuple[Reading, State]:
        """Return r of a step over the recorded forwards, and what was learned of the model. See `Radius.measure`."""
        check_recorded(seen)
        check_inputs(seen)
        # Beside forwards that trained, those whose gradients were handed to the caller are attacks or probes.
        stored = any(forward.stored for forward in seen.forwards)
        counted = [forward for forward in seen.forwards if forward.stored or not stored]
        gradients, model = {id(forward): _gradient(forward) for forward in counted}, Model(LOSSES[self.loss])
        tangents = Tangents(step, seen, "train", Route() if state is None else from_state(state["route"]))
        for forward, value, tangent in tangents:
            if (gradient := gradients.get(id(forward))) is not None:
                model.add(forward, value, tangent, gradient, check=state is None)
        whole = self.reduction == "sum"
        bend = self.scale * (model.bend if whole else model.mean)
        slope = model.slope / seen.loss_scale
        if state is None and LOSSES[self.loss].ignores and (off := unbalanced(seen)):
            _say_unbalanced(off)
        elif state is None and model.likely > 0.0:
            weight = self.scale if self.reduction == "sum" else self.scale / model.count
            self._check_loss(model.effort / (model.likely * weight * seen.loss_scale))
        ratio = curvature_ratio(bend, slope) * tangents.unit
        uphill = ratio == math.inf and math.isfinite(bend) and slope >= 0.0
        message = "uphill on this batch: g.p >= 0" if uphill else ""
        reading = Reading(
            step.index, ratio, f"{tangents.way}/train", tangents.exact and (whole or model.even), message, uphill=uphill
        )
        return reading, {"route": as_state(tangents.route)}

    def _check_loss(self, factor: float) -> None:
        if factor > _TOO_MUCH:
            warnings.warn(
                f"the gradient at the logits is {factor:.3g} times that of CurvatureRadius(loss={self.loss!r}, "
                f"reduction={self.reduction!r}, scale={self.scale:g}), so r is too small, by about as much or more. If "
                "the loop multiplies this loss by a constant, or adds the means of micro-batches: scale="
                f"{self.scale * factor:.3g}. If it multiplies the logits (a temperature): let the model do that. "
                "For another loss: HessianRadius(closure)",
                SafestepWarning,
                stacklevel=2,
            )


class Model:
    """Adds up the quadratic model along one step, forward by forward.

    Args:
        loss: which loss.

    Attributes:
        bend: ``p.Gp / unit^2`` of the losses of all rows, not yet averaged.
        slope: ``g.p / unit``.
        count: over how much a mean goes.
        effort: ``||dL/dz||_1 / 2``, where it was looked at.
        likely: the same for hard labels and a sum over rows; 0 where it was not looked at.
    """

    def __init__(self, loss: Loss) -> None:
        self.bend = self.slope = self.effort = self.likely = 0.0
        self._loss, self._rows = loss, 0
        self._parts: list[tuple[float, int]] = []

    @property
    def count(self) -> int:
        """Over how much a mean goes.

        Raises:
            MeasurementError: if there is nothing.
        """
        if not self._rows:
            raise MeasurementError("the recorded forward holds no samples (an empty batch): nothing to measure r on")
        return self._rows

    @property
    def even(self) -> bool:
        """Whether every forward has as many rows as every other, so that they weigh alike in any mean."""
        return len({rows for _, rows in self._parts}) <= 1

    @property
    def mean(self) -> float:
        """``p.Gp / unit^2`` of the mean: over all rows, or of the means of the forwards if that bends more."""
        pooled = self.bend / self.count
        if self.even:
            return pooled
        return max(pooled, sum(bend / rows for bend, rows in self._parts if rows) / len(self._parts))

    def add(self, forward: Forward, value: Tensor, tangent: Tensor, gradient: Tensor, *, check: bool) -> None:
        """Add a forward: its logits, ``J p / unit`` and dL/dz, each of shape ``(*samples, outputs)``.

        Raises:
            MeasurementError: if its rows cannot be told from its outputs, or are single classes.
        """
        if value.ndim == 1 and not (self._loss.entries or self._loss.ignores):
            raise MeasurementError(
                f"an output of shape {tuple(value.shape)}: half_mse is a mean over samples, and one dimension does not "
                "tell samples from outputs; give the model's output the shape (samples, 1)"
            )
        if value.shape[-1] == 1 and self._loss.ignores:
            raise MeasurementError(
                "one output under CurvatureRadius('cross_entropy'): the probability of a single class is 1 whatever "
                "the step does. Say which loss it is: CurvatureRadius('mse'), ('half_mse') or ('bce')"
            )
        active = active_rows(forward, value, "softmax").flatten() if self._loss.ignores else _all_rows(value)
        rows = self._loss.count(active, value.shape[-1])
        pieces = _pieces(value, tangent, gradient, active)
        # one number is read from the device at the end, not one a piece
        sums = torch.stack([self._sums(*piece, check=check) for piece in pieces] or [torch.zeros(4)]).sum(0).tolist()
        self._rows += rows
        self._parts.append((sums[0], rows))
        self.bend, self.slope = self.bend + sums[0], self.slope + sums[1]
        self.effort, self.likely = self.effort + sums[2], self.likely + sums[3]

    def _sums(self, value: Tensor, tangent: Tensor, gradient: Tensor, active: Tensor, *, check: bool) -> Tensor:
        bends = torch.where(active, self._loss.bend(value, tangent), 0.0)
        # In float64: terms of both signs cancel, and the sign of g.p decides. A masked class may have tangent nan.
        slope = (gradient.double() * torch.where(gradient == 0, 0.0, tangent).double()).sum()
        sums = [bends.sum(dtype=torch.float64), slope]
        if check and self._loss.likely is not None:
            likely = torch.where(active, self._loss.likely(value, gradient), 0.0)
            return torch.stack([*sums, gradient.abs().sum(dtype=torch.float64) / 2, likely.sum(dtype=torch.float64)])
        return torch.stack([*sums, slope.new_zeros(()), slope.new_zeros(())])


def _say_unbalanced(off: float) -> None:
    warnings.warn(
        f"the gradient at the logits does not sum to zero over the last dimension (off by {off:.0%} of its size), so "
        "the loss is not a softmax cross-entropy over it, and r is not that of the loss. Squared errors: "
        "CurvatureRadius('mse') or ('half_mse'); independent logits: ('bce'); any other loss: HessianRadius(closure). "
        "Classes in another dimension: let the model return out.movedim(1, -1). A model that returns "
        "log-probabilities: r is right as it is",
        SafestepWarning,
        stacklevel=3,
    )


def _gradient(forward: Forward) -> Tensor:
    if forward.gradient is None:
        raise MeasurementError(
            "the gradient at the logits was not seen (a logits= function that makes a new tensor?), so neither is "
            "g.p: let it return a tensor that the loss goes through, or use HessianRadius(closure)"
        )
    return forward.gradient


def _all_rows(value: Tensor) -> Tensor:
    return torch.ones(value.numel() // max(1, value.shape[-1]), dtype=torch.bool, device=value.device)


def _pieces(value: Tensor, tangent: Tensor, gradient: Tensor, active: Tensor) -> Iterator[tuple[Tensor, ...]]:
    few = max(1, _CHUNK // max(1, value.shape[-1]))
    rows = (torch.atleast_2d(tensor).flatten(0, -2) for tensor in (value, tangent, gradient))
    return zip(*(tensor.split(few) for tensor in (*rows, active)), strict=True)
