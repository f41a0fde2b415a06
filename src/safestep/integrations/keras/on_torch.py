"""A guarded training step on the torch backend: eager, in place, with dual numbers through one more forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from safestep._torch.rng import GeneratorStates, preserved_generators
from safestep.errors import MeasurementError
from safestep.integrations.keras._extra import keras
from safestep.integrations.keras.guarding import Along

Logs = dict[str, Any]


def train_step(model: Any, plain: Callable[[Any], Logs], data: Any) -> Logs:
    """Take the plain step, measure it at the state it started from, and write the scaled parameters.

    The forward is run again with the random generators, the states of the seed generators and the statistics of
    normalisation as they were before the training forward, and leaves no trace.

    Args:
        model: the guarded model.
        plain: its unguarded training step.
        data: the batch.

    Raises:
        NotImplementedError: from torch, for an operation without a forward derivative; the step is then undone.
    """
    trainable, others = model.trainable_variables, model.non_trainable_variables
    optimizer = model.optimizer.variables
    start, fixed, before = _copies(trainable), _copies(others), _copies(optimizer)
    generators = GeneratorStates.capture()
    logs = plain(data)
    moved = [variable.value.detach() for variable in trainable]
    try:
        with preserved_generators():
            generators.restore()
            along = _along(model, start, moved, fixed, data)
        measured = model.guard.measure(along, moved)
    except Exception:  # a step that cannot be measured is not left standing
        for variables, former in ((trainable, start), (others, fixed), (optimizer, before)):
            _assign(variables, former)
        raise
    _assign(trainable, measured.apply(start, moved))
    _assign(optimizer, measured.undo(before, [variable.value for variable in optimizer]))
    _assign(others, measured.undo(fixed, [variable.value for variable in others]))
    return {**logs, **model.guard.log(measured)}


def _along(model: Any, start: list[Tensor], moved: list[Tensor], fixed: list[Tensor], data: Any) -> Along:
    x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
    training = {"training": True} if model._call_has_training_arg else {}
    # Not torch.func.jvp, whose wrapped tensors lose the memory layout along which dropout draws.
    # The fused kernels of attention have no forward derivative; the plain formula has.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        duals = [forward_ad.make_dual(begin, end - begin) for begin, end in zip(start, moved, strict=True)]
        output = model.stateless_call(duals, fixed, x, **training)[0]
        if not isinstance(output, Tensor):
            return Along(output, output, lambda: (output, output))
        value, tangent = forward_ad.unpack_dual(output)
    if tangent is None:
        raise MeasurementError(
            "no derivative of the outputs along the step came through the model: no trainable variable reaches them, "
            "or a layer has no forward derivative in torch"
        )

    def derivatives_of_loss() -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            t = torch.zeros((), dtype=value.dtype, device=value.device, requires_grad=True)
            loss = model.stateless_compute_loss(
                start, fixed, [variable.value for variable in model.metrics_variables],
                x=x, y=y, y_pred=value + t * tangent, sample_weight=weight, training=True,
            )[0]  # fmt: skip
            (slope,) = torch.autograd.grad(loss, t, create_graph=True)
            if not slope.requires_grad:  # a loss that is linear in the outputs
                return torch.zeros_like(slope), slope
            (bend,) = torch.autograd.grad(slope, t, allow_unused=True, materialize_grads=True)
        return slope.detach(), bend.detach()

    return Along(value, tangent, derivatives_of_loss)


def _copies(variables: list[Any]) -> list[Tensor]:
    return [variable.value.detach().clone() for variable in variables]


def _assign(variables: list[Any], values: list[Tensor]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
