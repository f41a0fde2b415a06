"""Guards inside other transformations, compiled and not; their state saved and restored; training left alone."""

from __future__ import annotations

import math
import tempfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from networks import batch, gradient, network, on_device, weights

from safestep.errors import MeasurementError, UnknownNameError
from safestep.integrations.optax import cap, pin, read, read_all, spread, throttle, watch
from safestep.records.report import History

THOROUGH = {"xla_backend_optimization_level": 2, "xla_llvm_disable_expensive_passes": False}
"""The compiler as it is for users: all other checks are compiled fast."""


def stepper(tx):
    def step(params, state, x, y):
        updates, state = tx.update(gradient(params, x, y), state, params, inputs=x, labels=y)
        return optax.apply_updates(params, updates), state

    return step


def train(tx, steps=5, *, start=None, compiler=jax.jit, first=0):
    """Return parameters, state and the record of every step."""
    params, state = start or (on_device(weights()), None)
    state = tx.init(params) if state is None else state
    step, records = compiler(stepper(tx)), []
    for index in range(first, first + steps):
        params, state = step(params, state, *batch(index))
        records.append(read(state))
    return params, state, records


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert (a.dtype, np.asarray(a).tobytes()) == (b.dtype, np.asarray(b).tobytes())


def check_read_finds_the_guard_anywhere():
    guard = optax.chain(optax.sgd(30.0), cap(network, 0.3, limit=spread()))
    expected = train(guard)[2]
    wrapped = {
        "MultiSteps": optax.MultiSteps(guard, 1),
        "inject_hyperparams": optax.inject_hyperparams(
            lambda learning_rate: optax.chain(optax.sgd(learning_rate), cap(network, 0.3, limit=spread()))
        )(learning_rate=30.0),
        "a target that is injected": optax.chain(
            optax.sgd(30.0),
            optax.inject_hyperparams(cap, static_args=("logits_fn", "limit"))(network, target=0.3, limit=spread()),
        ),
        "apply_if_finite": optax.apply_if_finite(guard, 3),
    }
    for name, tx in wrapped.items():
        for mine, told in zip(train(tx)[2], expected, strict=True):
            assert (mine.step, mine.status) == (told.step, told.status) == (told.step, "capped"), name
            np.testing.assert_allclose([mine.ratio, mine.scale], [told.ratio, told.scale], rtol=1e-9, err_msg=name)
    assert read(guard.init(on_device(weights()))) is None
    for state, seen in ((optax.sgd(1.0).init(jnp.zeros(2)), 0), ((guard.init(jnp.zeros(2)),) * 2, 2)):
        with pytest.raises(UnknownNameError, match=f"saw {seen} guards"):
            read(state)
    with pytest.raises(MeasurementError, match=r"inside jit.*state\[-1\].ratio"):
        jax.jit(lambda state: read(state).ratio)(guard.init(jnp.zeros(2)))


def check_accumulation_measures_the_step_on_the_last_part():
    tx = optax.MultiSteps(optax.chain(optax.sgd(30.0), cap(network, 0.3, limit=spread())), 2)
    records = train(tx, 4)[2]
    assert [record and record.step for record in records] == [None, 0, 0, 1]
    start = on_device(weights())
    mean = jax.tree.map(lambda a, b: -15.0 * (a + b), gradient(start, *batch(0)), gradient(start, *batch(1)))
    lone = watch(network, limit=spread())
    _, told = lone.update(mean, lone.init(start), start, inputs=batch(1)[0])
    np.testing.assert_allclose(records[1].ratio, read(told).ratio, rtol=1e-6)  # the mean is in float32


def check_compiled_once_and_the_same_without_jit():
    traces = []

    def counted(params, x):
        traces.append(x)
        return network(params, x)

    def make():
        return optax.chain(optax.adam(3.0), cap(counted, 0.5, limit=spread("mean")))

    compiled = train(make(), 8, compiler=partial(jax.jit, donate_argnums=(0, 1)))
    assert len(traces) == 1
    plain = train(make(), 8, compiler=lambda step: step)
    assert len(traces) == 2
    for one, other in zip(compiled[2], plain[2], strict=True):
        np.testing.assert_allclose(one.ratio, other.ratio, rtol=1e-9)


def bits_after(tx, *, together):
    """Return parameters and the state of the optimizer after a few steps in float32, compiled as it is for users."""

    def update(params, state, x, y):
        updates, state = tx.update(gradient(params, x, y), state, params, inputs=x, labels=y)
        return optax.apply_updates(params, updates) if together else updates, state

    params = jax.tree.map(lambda q: q.astype("float32"), on_device(weights(sizes=(5, 64, 4))))
    state, step = tx.init(params), None
    for index in range(6):
        x, y = batch(index, rows=64)
        arguments = params, state, x.astype("float32"), y
        step = step or jax.jit(update).lower(*arguments).compile(compiler_options=THOROUGH)
        moved, state = step(*arguments)
        params = moved if together else optax.apply_updates(params, moved)
    assert len(state) == 1 or 0.0 < read(state).ratio < 50.0
    return params, state[0]


def check_training_inside_is_bit_for_bit_that_without_a_guard():
    """Watched in any case; capped where XLA cannot merge the last product of the optimizer into ``theta + p``."""
    for optimizer in (optax.sgd(0.05, 0.9), optax.adamw(1e-3)):
        capped, watched = (optax.chain(optimizer, guard) for guard in (cap(network, 50.0), watch(network)))
        same(bits_after(optax.chain(optimizer), together=True), bits_after(watched, together=True))
        same(bits_after(optax.chain(optimizer), together=False), bits_after(capped, together=False))


def check_a_run_that_was_saved_goes_on_bit_for_bit():
    """The state of an acting throttle and a pin, through orbax."""
    for guard in (throttle(network, order=2, gain=0.01, start=0.3), pin(network, 0.7)):
        tx = optax.chain(optax.adam(0.3), guard)
        whole = train(tx, 8)
        params, state, _ = train(tx, 5)
        with tempfile.TemporaryDirectory() as folder, orbax.checkpoint.StandardCheckpointer() as checkpointer:
            saved = {"params": params, "state": state}
            checkpointer.save(Path(folder) / "it", saved)
            checkpointer.wait_until_finished()
            blank = {"params": on_device(weights(5)), "state": tx.init(params)}
            restored = checkpointer.restore(Path(folder) / "it", blank)
        same(restored, saved)
        assert read(restored["state"]) == read(state)
        later = train(tx, 3, start=(restored["params"], restored["state"]), first=5)
        same(later[:2], whole[:2])
        assert later[2] == whole[2][5:]
        assert all(record.scale not in (0.0, 1.0) for record in later[2])


def check_records_fill_a_history():
    history = History()
    for record in train(optax.chain(optax.sgd(30.0), cap(network)), 3)[2]:
        history.append(record)
    assert history["status"] == ["capped"] * 3
    assert all(kl > 0 for kl in history["predicted_kl"])
    assert all(math.isclose(one.applied_ratio, 1.0) for one in history)


def check_an_ensemble_under_vmap():
    tx = optax.chain(optax.sgd(30.0), cap(network, 0.3, limit=spread()))
    many = jax.tree.map(lambda *parts: jnp.stack(parts), *(on_device(weights(seed)) for seed in range(3)))
    states = jax.vmap(tx.init)(many)
    assert read_all(states) == []
    moved, states = jax.jit(jax.vmap(stepper(tx), in_axes=(0, 0, None, None)))(many, states, *batch(0))
    found = read_all(states)
    with pytest.raises(MeasurementError, match=r"states of 3 steps or models.*read_all"):
        read(states)
    for seed in range(3):
        params, _, (record,) = train(tx, 1, start=(on_device(weights(seed)), None))
        assert (found[seed].step, found[seed].status) == (0, "capped")
        np.testing.assert_allclose(found[seed].ratio, record.ratio, rtol=1e-9)
        np.testing.assert_allclose(moved[0]["w"][seed], params[0]["w"], rtol=1e-9)
