"""A guarded training step on the jax backend: pure functions of the state, traced and compiled with the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from safestep._torch.extras import need
from safestep.integrations.keras._extra import Array, keras, ops
from safestep.integrations.keras.guarding import Along, Measured
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
    before = state[2]
    logs, (moved, later_fixed, later_optimizer, later_metrics) = plain(state, data)
    # Behind the branch the forward is run again: as a common part of both, it would be compiled to round differently.
    leaves, shape = jax.tree.flatten((state, moved, later_fixed, later_optimizer, data))
    count = before[[variable is model.optimizer._iterations for variable in model.optimizer.variables].index(True)]
    state, moved, later_fixed, later_optimizer, data = jax.tree.unflatten(shape, apart(leaves, count))
    start, fixed, optimizer, metrics = state
    x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
    training = {"training": True} if model._call_has_training_arg else {}

    def outputs(trainable: list[Array]) -> Array:
        return model.stateless_call(trainable, fixed, x, **training)[0]

    value, tangent = jax.jvp(outputs, (start,), ([end - begin for end, begin in zip(moved, start, strict=True)],))

    def loss(t: Array) -> Array:
        along = jax.tree.map(lambda z, a: z + t * a, value, tangent)
        found, _ = model.stateless_compute_loss(
            start, fixed, metrics, x=x, y=y, y_pred=along, sample_weight=weight, training=True
        )
        return found

    def derivatives_of_loss() -> tuple[Array, Array]:
        slope, bend = jax.jvp(jax.grad(loss), (0.0,), (1.0,))
        return slope, bend

    measured = model.guard.measure(Along(value, tangent, derivatives_of_loss), moved)
    kept = measured.apply(start, moved)
    later_optimizer = measured.undo(optimizer, later_optimizer)
    later_fixed = measured.undo(fixed, later_fixed)
    logs, later_metrics = _logged(model, measured, logs, later_metrics)
    return logs, (kept, later_fixed, later_optimizer, later_metrics)


def _logged(model: Any, measured: Measured, logs: Logs, values: list[Array]) -> tuple[Logs, list[Array]]:
    with keras.StatelessScope(state_mapping=list(zip(model.metrics_variables, values, strict=True))) as scope:
        logs = {**logs, **model.guard.log(measured)}
    current = [scope.get_current_value(variable) for variable in model.metrics_variables]
    return logs, [ops.convert_to_tensor(value) for value in current]
