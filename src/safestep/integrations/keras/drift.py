"""The drift experiment in Keras: a linear student, inputs whose gain jumps, with and without the throttle."""

from __future__ import annotations

from typing import Any

from safestep.integrations.keras._extra import Array, keras, ops
from safestep.integrations.keras.log import ThrottleLog
from safestep.integrations.keras.throttled import Throttled


def half_mse(y: Array, prediction: Array) -> Array:
    """Return half the squared error of each sample, added over its outputs, in squared units of ``y``.

    Example:
        >>> float(half_mse(ops.zeros((1, 2)), ops.array([[3.0, 4.0]]))[0])
        12.5
    """
    return ops.sum(ops.square(prediction - y), -1) / 2


def drift(
    x: Any,
    y: Any,
    start: Any,
    *,
    rate: float = 0.5,
    gain: float = 4.0,
    warmup: int = 20,
    steps: int = 100,
    throttle: dict[str, Any] | None = None,
) -> list[dict[str, float]]:
    """Train a linear student by full-batch gradient descent, multiply its inputs by a gain, and train on.

    Args:
        x: inputs, shape ``(samples, inputs)``.
        y: targets, shape ``(samples, outputs)``; they stay as they are when the inputs drift.
        start: the weights to start from, shape ``(inputs, outputs)``.
        rate: ``eta``.
        gain: ``gamma``, dimensionless.
        warmup: steps before the drift, without a throttle.
        steps: steps after it.
        throttle: options of `Throttled` for the steps after the drift, such as ``{"chi": 1.5}``; None for no throttle.

    Returns:
        One dictionary per step: ``drifted`` (0 or 1), ``loss`` (half_mse before the step), and of a throttled step
        what `ThrottleLog` writes.

    Example:
        >>> x, y = [[1.0, 0.0], [0.0, 1.0]], [[1.0], [2.0]]
        >>> free = drift(x, y, [[0.0], [0.0]], gain=4.0, steps=30)
        >>> kept = drift(x, y, [[0.0], [0.0]], gain=4.0, steps=30, throttle={"chi": 1.5})
        >>> free[-1]["loss"] > 1e6, kept[-1]["loss"] < 1e-3, max(row["applied_margin"] for row in kept[20:]) < 1.5001
        (True, True, True)

    Reference:
        M. Blanco Valentin, ENABOL / kappa, experiment 000.
    """
    x, y, start = (ops.convert_to_tensor(data, "float32") for data in (x, y, start))
    dense = keras.layers.Dense(start.shape[1], use_bias=False)
    model = keras.Sequential([keras.Input((start.shape[0],)), dense])
    dense.kernel.assign(start)
    options = {"batch_size": x.shape[0], "shuffle": False, "verbose": 0}
    model.compile(keras.optimizers.SGD(rate), half_mse)
    losses = model.fit(x, y, epochs=warmup, **options).history.get("loss", [])
    rows = [{"drifted": 0, "loss": loss} for loss in losses]
    optimizer = keras.optimizers.SGD(rate)
    log = ThrottleLog()
    model.compile(optimizer if throttle is None else Throttled(optimizer, **throttle), half_mse)
    callbacks = [] if throttle is None else [log]
    losses = model.fit(gain * x, y, epochs=steps, callbacks=callbacks, **options).history["loss"]
    seen = log.rows or [{} for _ in losses]
    return [*rows, *({"drifted": 1, "loss": loss, **row} for loss, row in zip(losses, seen, strict=True))]
