"""The Hessian radius: r = p.Hp / (-2 g.p) of any loss, by a Hessian-vector product through the user's closure."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from safestep.distributed.dtensor import any_sharded
from safestep.errors import MeasurementError, first_line
from safestep.formulas.quadratic_ratio import curvature_ratio
from safestep.jvp.replay import no_trace
from safestep.jvp.restore import untouched
from safestep.radius.across_ranks import mean
from safestep.radius.radius import Radius, State
from safestep.recording.forwards import Forwards
from safestep.recording.mute import unheard
from safestep.recording.proposal import Proposal
from safestep.recording.step import Step
from safestep.records.reading import Reading

Closure = Callable[[], Tensor]
"""Evaluates the loss of the step's batch at the parameters as they are; runs no backward."""


@dataclass(frozen=True)
class HessianRadius(Radius):
    r"""Limits how far the quadratic model of any loss along the step climbs back.

    Equation:
        ``r = p.Hp / (-2 g.p)`` with gradient ``g`` and Hessian ``H`` of the closure's loss at the start of the step,
        by two reverse passes. ``r = 0`` where ``p.Hp <= 0``: the model does not bend upwards and limits nothing. A
        step that goes uphill, ``g.p > 0``, is held however the loss bends.

    Attributes:
        closure: returns the scalar loss of the step's batch, such as ``lambda: loss_fn(model(x), y)`` with the
            ``x, y`` of the loop: everything that is minimised, penalties included. It is called once a step, after the
            optimizer stepped, with the parameters put back to where the step started.

    Raises:
        TypeError: at construction, for something that cannot be called.

    Example:
        >>> import torch, safestep
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> x = torch.tensor([[2.0]])
        >>> radius = HessianRadius(lambda: (model(x) - 1.0).square().sum() / 2)
        >>> guard = safestep.attach(model, optimizer, radius=radius, policy=safestep.Watch())
        >>> radius.closure().backward()
        >>> optimizer.step()
        >>> round(guard.last.ratio, 6)  # eta lambda / 2 with lambda = 4
        1.0

    Note:
        The closure draws its own random numbers, the same as the recorded forward did where there was one forward;
        beyond that a dropout mask is another one than training had. Nothing of its run stays: parameters, buffers,
        gradients and generators are put back. Layers without a second derivative cannot be measured (fused kernels;
        attention is run unfused).

    Reference:
        B. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994).
    """

    closure: Closure

    agrees_across_ranks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the closure."""
        if not callable(self.closure):
            raise TypeError(f"HessianRadius({self.closure!r}): expected a function that returns the loss of the batch")

    def measure(self, proposal: Proposal, state: State) -> tuple[Reading, State]:
        """Return r of a step. See `Radius.measure`."""
        step, forwards = proposal.step, proposal.forwards
        directional_derivative, curvature = mean(proposal, lambda: self._measured(step, forwards), 2)
        ratio = curvature_ratio(curvature, directional_derivative)
        uphill = ratio == math.inf and math.isfinite(curvature) and directional_derivative >= 0.0
        message = "uphill on this batch: g.p >= 0" if uphill else "the loss does not bend upwards"
        message = message if uphill or curvature <= 0.0 else ""
        # of several forwards, it is not known what the closure draws
        return Reading(step.index, ratio, "hessian", forwards.count <= 1, message, uphill=uphill), state

    def _measured(self, step: Step, forwards: Forwards) -> tuple[float, float]:
        if any_sharded(step.start):
            raise MeasurementError(
                "the parameters are DTensors, through which torch differentiates once: use CurvatureRadius, or the "
                "softmax radius"
            )
        displacement = step.displacement  # before the parameters go back to where the step started
        with contextlib.ExitStack() as stack:
            for one in (_put_back(step), untouched(forwards.model, step.start), no_trace(forwards.model), unheard()):
                stack.enter_context(one)
            stack.enter_context(torch.enable_grad())
            if forwards.kept and forwards.count == 1:
                forwards.kept[0].generators.restore()
            stack.enter_context(_unreduced(forwards.model))
            _put(step)
            return self._derivatives(displacement)

    def _derivatives(self, displacement: dict[Tensor, Tensor]) -> tuple[float, float]:
        moving = [parameter for parameter in displacement if parameter.requires_grad]
        loss = self.closure()
        if not isinstance(loss, Tensor) or loss.numel() != 1 or loss.grad_fn is None:
            found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise MeasurementError(
                f"the closure of HessianRadius returned {found}: expected the loss of the batch, a scalar with a graph "
                "to the parameters (no backward, no .item(), no torch.no_grad)"
            )
        try:
            directional_derivative = _along(
                torch.autograd.grad(loss, moving, create_graph=True, allow_unused=True), moving, displacement
            )
            if directional_derivative.grad_fn is None:  # linear in the parameters, or not of them at all
                return directional_derivative.item(), 0.0
            curvature = _along(
                torch.autograd.grad(directional_derivative, moving, allow_unused=True), moving, displacement
            )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise MeasurementError(
                f"the loss cannot be differentiated twice ({first_line(error)}): CurvatureRadius needs one derivative"
            ) from error
        return directional_derivative.item(), curvature.item()


def _unreduced(model: nn.Module) -> AbstractContextManager[None]:
    """Keep a data-parallel wrapper from waiting for a backward that does not come."""
    if not isinstance(model, nn.parallel.DistributedDataParallel):
        return contextlib.nullcontext()
    waiting: AbstractContextManager[None] = model.no_sync()
    return waiting


@torch.no_grad()
def _put(step: Step) -> None:
    for parameter, origin in step.start.items():
        parameter.copy_(origin)


@contextlib.contextmanager
def _put_back(step: Step) -> Iterator[None]:
    """Put back what moved although it is frozen by now (a gradient was left): `untouched` passes over it."""
    moved = [(parameter, parameter.detach().clone()) for parameter in step.start if not parameter.requires_grad]
    try:
        yield
    finally:
        for parameter, value in moved:
            parameter.detach().copy_(value)


def _along(gradients: tuple[Tensor | None, ...], moving: list[Tensor], displacement: dict[Tensor, Tensor]) -> Tensor:
    pairs = ((g, displacement[q]) for g, q in zip(gradients, moving, strict=True) if g is not None)
    # torch's gradient of a complex number is one in its real and imaginary part
    real = (tuple(map(torch.view_as_real, pair)) if pair[0].is_complex() else pair for pair in pairs)
    products = [(g * p).sum().double() for g, p in real]
    return torch.stack(products).sum() if products else torch.zeros(())
