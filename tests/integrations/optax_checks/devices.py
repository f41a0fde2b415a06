"""Two devices: parts of a batch under pmap and shard_map, sharded arrays under jit; all as on one device."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from networks import batch, cross_entropy, network, on_device, weights

from safestep.integrations.optax import cap, divergence, read, spread, throttle, tightest, watch

MESH = Mesh(np.array(jax.devices()), ("data",))
EVERYWHERE, SPLIT = PartitionSpec(), PartitionSpec("data")
GUARDS = {
    "default": cap,
    "quantile": lambda f, **o: cap(f, 0.2, limit=spread(0.6), **o),
    "throttle": lambda f, **o: throttle(f, order=1, start=0.5, **o),
    "all": lambda f, **o: cap(f, limit=tightest({spread(): 0.5, divergence(0.01): 1.0}), **o),
}
MASK = np.arange(12) % 5 != 0


def stepper(make, axis=None, *, summed=False):
    """Return the transformation, and a step by the gradient of the mean over all samples that count.

    Args:
        make: the guard.
        axis: of devices.
        summed: whether jax adds up gradients over them itself, as it does in shard_map.
    """
    tx = optax.chain(optax.sgd(8.0, 0.9), make(network, **({} if axis is None else {"axis_name": axis})))

    def loss(params, x, y, mask):
        losses = jnp.where(mask, cross_entropy(network(params, x), y), 0.0).sum()
        return losses / MASK.sum()

    def step(params, state, x, y, mask):
        gradient = jax.grad(loss)(params, x, y, mask)
        gradient = gradient if axis is None or summed else jax.lax.psum(gradient, axis)
        updates, state = tx.update(gradient, state, params, inputs=x, labels=y, mask=mask)
        return optax.apply_updates(params, updates), state

    return tx, step


def run(tx, step, place=lambda *batch: batch, start=lambda tree: tree):
    params = on_device(weights())
    params, state, records = start(params), start(tx.init(params)), []
    for index in range(4):
        params, state = step(params, state, *place(*batch(index), MASK))
        records.append(read(state))
    return params, records


@functools.cache
def on_one_device(name):
    tx, step = stepper(GUARDS[name])
    return run(tx, jax.jit(step))


def agree(name, found, *, copies=False):
    params, records = found
    expected, told = on_one_device(name)
    assert {record.status for record in told} & {"capped", "throttled"}, name
    for mine, one in zip(records, told, strict=True):
        assert (mine.step, mine.status) == (one.step, one.status)
        for what in ("ratio", "scale", "step_length", "predicted_kl"):
            np.testing.assert_allclose(getattr(mine, what), getattr(one, what), rtol=1e-8, err_msg=f"{name} {what}")
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        for copy in a if copies else (a,):
            np.testing.assert_allclose(copy, b, rtol=1e-8, atol=1e-12)


def check_pmap():
    for name in ("quantile", "throttle"):
        tx, step = stepper(GUARDS[name], "data")

        def halves(*parts):
            return [part.reshape(2, -1, *part.shape[1:]) for part in parts]

        def twice(tree):
            return jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), tree)

        agree(name, run(tx, jax.pmap(step, axis_name="data"), halves, twice), copies=True)


def check_shard_map():
    """Which makes sure that what is handed out as the same everywhere is."""
    specs = (EVERYWHERE, EVERYWHERE, SPLIT, SPLIT, SPLIT)
    for name, make in GUARDS.items():
        tx, step = stepper(make, "data", summed=True)
        mapped = jax.shard_map(step, mesh=MESH, in_specs=specs, out_specs=(EVERYWHERE, EVERYWHERE))
        agree(name, run(tx, jax.jit(mapped)))


def check_sharded_arrays_need_no_axis():
    for name in ("default", "quantile"):
        tx, step = stepper(GUARDS[name])

        def place(*parts):
            return [jax.device_put(part, NamedSharding(MESH, SPLIT)) for part in parts]

        def everywhere(tree):
            return jax.device_put(tree, NamedSharding(MESH, EVERYWHERE))

        agree(name, run(tx, jax.jit(step), place, everywhere))


def check_sharded_parameters():
    """Rows of the weights on different devices, as in FSDP."""
    tx, step = stepper(GUARDS["default"])

    def by_rows(tree):
        def put(leaf):
            split = leaf.ndim > 0 and leaf.shape[0] % 2 == 0
            return jax.device_put(leaf, NamedSharding(MESH, SPLIT if split else EVERYWHERE))

        return jax.tree.map(put, tree)

    params, records = run(tx, jax.jit(step), start=by_rows)
    assert len(params[1]["w"].sharding.device_set) == 2
    assert params[1]["w"].addressable_shards[0].data.shape == (2, 7)
    agree("default", (params, records))


def check_one_device_with_a_step_that_is_not_finite_takes_all_with_it():
    """Nobody waits in a reduction that the others do not enter."""
    tx = watch(network, limit=spread(), axis_name="data")
    params = on_device(weights())
    step = jax.tree.map(lambda q: jnp.stack([jnp.ones_like(q), jnp.full_like(q, jnp.nan)]), params)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), (tx.init(params), params))

    def update(step, state, params, x):
        return tx.update(step, state, params, inputs=x)[1]

    state = jax.pmap(update, axis_name="data")(step, *many, batch(0)[0].reshape(2, 6, 5))
    assert [int(n) for n in state.status] == [int(state.status[0])] * 2
    assert read(state).status == "nonfinite"
