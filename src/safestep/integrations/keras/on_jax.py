"""A guarded training step on the jax backend: pure functions of the state, traced and compiled with the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from safestep._torch.extras import need
from safestep.integrations.keras._keras import Array, keras, ops
from safestep.integrations.keras.fusion_barrier import apart

jax = need("jax", "keras")

Logs = dict[str, Any]
State = tuple[list[Array], list[Array], list[Array], list[Array]]


def train_step(model: Any, plain: Callable[[State, Any], tuple[Logs, State]], state: State, data: Any) -> Any:
    """Take the plain step, measure it at the state it started from, and return the scaled state.

    The forward is run again from the very state of the training forward: the states of the seed generators and the
    statistics of normalisation are arguments here, so that dropout draws the same masks.

    Args:
        model: the guarded model.
        plain: its unguarded training step.
        state: trainable, non-trainable, optimizer and metrics variables.
        data: the batch.
    """
    count = state[2][[variable is model.optimizer._iterations for variable in model.optimizer.variables].index(True)]
    logs, after = plain(state, data)
    # Behind the branch the forward is run again: as a common part of both, it would be compiled to round differently.
    leaves, shape = jax.tree.flatten((state, after, data))
    (start, fixed, optimizer, metrics), (moved, *later), data = jax.tree.unflatten(shape, apart(leaves, count))
    x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
    training = {"training": True} if model._call_has_training_arg else {}

    def outputs(trainable: list[Array]) -> Array:
        return model.stateless_call(trainable, fixed, x, **training)[0]

    value, tangent = jax.jvp(outputs, (start,), ([end - begin for end, begin in zip(moved, start, strict=True)],))

    def loss(t: Array) -> Array:
        along = jax.tree.map(lambda z, a: z + t * a, value, tangent)
        return model.stateless_compute_loss(
            start, fixed, metrics, x=x, y=y, y_pred=along, sample_weight=weight, training=True
        )[0]

    measured = model.guard.measure(value, tangent, lambda: jax.jvp(jax.grad(loss), (0.0,), (1.0,)), moved)
    applied, later_fixed = measured.apply(start, moved), measured.undo(fixed, later[0])
    later_optimizer = measured.undo(optimizer, later[1])
    pairs = list(zip(model.metrics_variables, later[2], strict=True))
    with keras.StatelessScope(state_mapping=pairs) as scope:
        logs = {**logs, **model.guard.log(measured)}
    later_metrics = [ops.convert_to_tensor(scope.get_current_value(variable)) for variable in model.metrics_variables]
    return logs, (applied, later_fixed, later_optimizer, later_metrics)
