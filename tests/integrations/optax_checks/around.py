"""A guard in what people put around it: several devices, accumulation, injected rates, saved states, and its page."""

from __future__ import annotations

import doctest
import pickle
import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from networks import batch, gradient, network, on_device, weights

from safestep.errors import UnknownNameError
from safestep.integrations.optax import cap, curvature, divergence, guarded_updates, read, spread, throttled_updates

PAGE = Path(__file__).parents[3] / "docs" / "jax.md"
LIMITS = {"largest": spread(), "mean": spread("mean"), "curvature": curvature(), "divergence": divergence()}


def stepped(tx, params, x, y):
    """Return the updates of SGD by a mean cross-entropy, and the state after them."""
    chain = optax.chain(optax.sgd(5.0), tx)
    updates, state = chain.update(gradient(params, x, y), chain.init(params), params, inputs=x, labels=y)
    return updates, state


def assert_alike(one, other, rtol=1e-9):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=1e-15), one, other)


def check_two_devices_agree_with_one():
    """Each with half of the batch, under shard_map with a named axis; and sharded arrays under plain jit."""
    params, (x, y) = on_device(weights()), batch(0)
    mesh = Mesh(np.array(jax.devices()), "batch")
    assert mesh.size == 2
    for limit in LIMITS.values():
        alone = jax.jit(partial(stepped, cap(network, 0.1, limit=limit)))(params, x, y)

        def part(params, x, y, limit=limit):
            chain = optax.chain(optax.sgd(5.0), cap(network, 0.1, limit=limit, axis_name="batch"))
            mean = jax.lax.pmean(gradient(params, x, y), "batch")
            return chain.update(mean, chain.init(params), params, inputs=x, labels=y)

        specs = {"mesh": mesh, "in_specs": (P(), P("batch"), P("batch")), "out_specs": P(), "check_vma": False}
        assert_alike(jax.jit(jax.shard_map(part, **specs))(params, x, y), alone)
        halves = jax.device_put((x, y), NamedSharding(mesh, P("batch")))
        assert_alike(jax.jit(partial(stepped, cap(network, 0.1, limit=limit)))(params, *halves), alone)
        assert read(alone[1]).status == "capped"


def check_accumulation_guards_the_step_of_all_parts():
    """The step is that of the mean gradient, measured on the last part: nothing moves, and is recorded, before it."""
    params, tx = on_device(weights()), optax.MultiSteps(optax.chain(optax.sgd(5.0), cap(network, 0.1)), 2)
    state, parts = tx.init(params), [batch(0), batch(1)]
    for number, (x, y) in enumerate(parts):
        assert read(state) is None
        updates, state = tx.update(gradient(params, x, y), state, params, inputs=x, labels=y)
        moved = sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(updates))
        assert (moved > 0) == (number == 1)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *(gradient(params, x, y) for x, y in parts))
    chain, (x, y) = optax.chain(optax.sgd(5.0), cap(network, 0.1)), parts[1]
    expected, _ = chain.update(mean, chain.init(params), params, inputs=x, labels=y)
    assert_alike(updates, expected, rtol=1e-6)  # MultiSteps divides in float32


def check_injected_rates_hide_nothing():
    params, (x, y) = on_device(weights()), batch(0)

    @optax.inject_hyperparams
    def optimizer(learning_rate):
        return optax.chain(optax.sgd(learning_rate), cap(network, 0.1, limit=LIMITS["largest"]))

    tx = optimizer(learning_rate=5.0)
    updates, state = tx.update(gradient(params, x, y), tx.init(params), params, inputs=x, labels=y)
    assert_alike(updates, stepped(cap(network, 0.1, limit=LIMITS["largest"]), params, x, y)[0])
    assert read(state).status == "capped"


def check_a_state_without_a_guard_is_refused():
    with pytest.raises(UnknownNameError, match="saw 0 guards"):
        read(optax.sgd(0.1).init(on_device(weights())))


def check_a_saved_state_goes_on_bit_for_bit():
    start = on_device(weights())
    chain = optax.chain(optax.adam(0.5), cap(network, 0.1))

    @jax.jit
    def step(params, state, x, y):
        updates, state = chain.update(gradient(params, x, y), state, params, inputs=x, labels=y)
        return optax.apply_updates(params, updates), state

    whole = start, chain.init(start)
    for index in range(6):
        whole = step(*whole, *batch(index))
        if index == 2:
            saved = pickle.dumps(jax.device_get(whole))
    again = pickle.loads(saved)
    for index in range(3, 6):
        again = step(*again, *batch(index))
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def check_the_examples_of_the_page_run():
    """But those of packages that are not here: tests/frameworks runs them."""
    scope: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    ours = [block for block in blocks if not re.search(r"^(?:import|from) (?:flax|equinox|orbax)", block, re.MULTILINE)]
    assert 2 <= len(ours) < len(blocks)
    for block in ours:
        exec(compile(block, str(PAGE), "exec"), scope)


def check_the_examples_of_the_docstrings_hold():
    for module in (guarded_updates, throttled_updates):
        found = doctest.testmod(module)
        assert found.attempted > 3
        assert not found.failed
