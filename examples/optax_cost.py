"""What a guard of optax costs: `python examples/optax_cost.py [PAIRS]` times steps of AdamW without and with it."""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax

from safestep.integrations.optax import cap, spread

NETWORKS = (((64, 128, 128, 10), 128), ((784, 512, 512, 10), 128), ((784, 1024, 1024, 10), 512))
LIMITS = {"default limit": None, "spread()": spread()}


def logits_fn(layers: Any, x: jax.Array) -> jax.Array:
    """Return the logits of a perceptron."""
    for weight in layers[:-1]:
        x = jax.nn.relu(x @ weight)
    return x @ layers[-1]


def stepper(tx: optax.GradientTransformationExtraArgs, sizes: tuple[int, ...], rows: int) -> Any:
    """Return a function that takes a step of training, compiled before, and returns its seconds."""
    key, *keys = jax.random.split(jax.random.key(0), len(sizes))
    pairs = zip(keys, itertools.pairwise(sizes), strict=True)
    params = [jax.random.normal(key, shape) * (2 / shape[0]) ** 0.5 for key, shape in pairs]
    batch = {"inputs": jax.random.normal(key, (rows, sizes[0])), "labels": jnp.arange(rows) % sizes[-1]}

    def loss(params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits_fn(params, inputs), labels).mean()

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> Any:
        updates, state = tx.update(jax.grad(loss)(params, **batch), state, params, **batch)
        return optax.apply_updates(params, updates), state

    def timed() -> float:
        nonlocal now
        began = time.perf_counter()
        now = jax.block_until_ready(step(*now, batch))
        return time.perf_counter() - began

    now = step(params, tx.init(params), batch)
    return timed


if __name__ == "__main__":
    for (sizes, rows), (name, limit) in itertools.product(NETWORKS, LIMITS.items()):
        chains = optax.chain(optax.adamw(1e-3)), optax.chain(optax.adamw(1e-3), cap(logits_fn, limit=limit))
        plain, guarded = (stepper(tx, sizes, rows) for tx in chains)
        times = [(plain(), guarded()) for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 200)]
        ratio, milliseconds = (statistics.median(x) for x in ((g / p for p, g in times), (1e3 * p for p, _ in times)))
        print(f"{'-'.join(map(str, sizes))}, batch {rows}, {name}: {ratio:.2f} x a plain step of {milliseconds:.1f} ms")
