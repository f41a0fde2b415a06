"""A guarded training step on the torch backend: eager, in place, with dual numbers through one more forward."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from safestep._torch.rng import GeneratorStates, preserved_generators
from safestep.errors import MeasurementError
from safestep.integrations.keras._keras import keras

Logs = dict[str, Any]
Tensors = list[Tensor]


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
    groups = model.trainable_variables, model.non_trainable_variables, model.optimizer.variables
    before = [[variable.value.detach().clone() for variable in group] for group in groups]
    start, fixed, _ = before
    generators = GeneratorStates.capture()
    logs = plain(data)
    moved = [variable.value.detach() for variable in groups[0]]
    try:
        with preserved_generators():
            generators.restore()
            value, tangent = _forward(model, start, moved, fixed, data)
        derivatives = partial(_derivatives, model, start, fixed, value, tangent, data)
        measured = model.guard.measure(value, tangent, derivatives, moved)
    except Exception:  # a step that cannot be measured is not left standing
        for group, values in zip(groups, before, strict=True):
            _assign(group, values)
        raise
    _assign(groups[0], measured.apply(start, moved))
    for group, values in zip(groups[1:], before[1:], strict=True):
        _assign(group, measured.undo(values, [variable.value for variable in group]))
    return {**logs, **model.guard.log(measured)}


def _forward(model: Any, start: Tensors, moved: Tensors, fixed: Tensors, data: Any) -> tuple[Any, Any]:
    """Return the outputs of the training forward and ``J p``; twice the outputs where they are no tensor."""
    x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    training = {"training": True} if model._call_has_training_arg else {}
    # Not torch.func.jvp, whose wrapped tensors lose the memory layout along which dropout draws.
    # The fused kernels of attention have no forward derivative; the plain formula has.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        duals = [forward_ad.make_dual(begin, end - begin) for begin, end in zip(start, moved, strict=True)]
        output = model.stateless_call(duals, fixed, x, **training)[0]
        if not isinstance(output, Tensor):
            return output, output
        value, tangent = forward_ad.unpack_dual(output)
    if tangent is None:
        raise MeasurementError(
            "no derivative of the outputs along the step came through the model: no trainable variable reaches them, "
            "or a layer has no forward derivative in torch"
        )
    return value, tangent


def _derivatives(
    model: Any, start: Tensors, fixed: Tensors, value: Tensor, tangent: Tensor, data: Any
) -> tuple[Tensor, Tensor]:
    """Return ``g.p`` and ``p.Gp``: the derivatives at t = 0 of the model's own loss at ``z + t J p``."""
    x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
    with torch.enable_grad():
        t = torch.zeros((), dtype=value.dtype, device=value.device, requires_grad=True)
        loss = model.stateless_compute_loss(
            start, fixed, [variable.value for variable in model.metrics_variables],
            x=x, y=y, y_pred=value + t * tangent, sample_weight=weight, training=True,
        )[0]  # fmt: skip
        (slope,) = torch.autograd.grad(loss, t, create_graph=True)
        if not slope.requires_grad:  # a loss that is linear in the outputs
            return slope, torch.zeros_like(slope)
        (bend,) = torch.autograd.grad(slope, t, allow_unused=True, materialize_grads=True)
    return slope.detach(), bend.detach()


def _assign(variables: list[Any], values: Tensors) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
