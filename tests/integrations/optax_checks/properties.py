"""What holds of every step: closed forms, a dense Jacobian, scaling, shifts, masks, and what is not finite."""

from __future__ import annotations

import functools
import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from networks import batch, cross_entropy, dense, downhill, network, on_device, random_like, weights

from safestep.errors import AttachError, LossMismatchError, MeasurementError, NothingToMeasureError, OneLogitError
from safestep.integrations.optax import (
    cap,
    curvature,
    default_limit,
    divergence,
    pin,
    read,
    spread,
    throttle,
    tightest,
    watch,
)

STATISTICS = {"max": jnp.max, "mean": jnp.mean, 0.5: lambda s: jnp.sort(s)[math.ceil(s.size / 2) - 1]}
SPREADS = {over: spread(over) for over in STATISTICS}
SIGMOID, CURVATURE, KL, DEFAULT = spread(head="sigmoid"), curvature(), divergence(0.01), default_limit()
LIMITS = (*SPREADS.values(), CURVATURE, KL, DEFAULT)
SEEDS = st.integers(0, 2**31)


@functools.cache
def compiled(make, *arguments, **options):
    """Return a transformation whose update is compiled, once for all examples."""
    tx = make(*arguments, **options)
    return optax.GradientTransformationExtraArgs(tx.init, jax.jit(tx.update))


def take(tx, params, step, x, y=None, mask=None):
    """Return the updates and the record of a step."""
    updates, state = tx.update(step, tx.init(params), params, inputs=x, labels=y, mask=mask)
    return updates, read(state)


def ratio(limit, params, step, x, y=None, mask=None, logits_fn=network):
    return take(compiled(watch, logits_fn, limit=limit), params, step, x, y, mask)[1].ratio


def ratios(params, step, x, y, mask=None, logits_fn=network, limits=LIMITS):
    """Return r of each limit, from one program: to compile each of its own takes longer than all they compute."""
    return [float(state.ratio) for state in _watched(logits_fn, limits)(params, step, inputs=x, labels=y, mask=mask)]


@functools.cache
def _watched(logits_fn, limits):
    guards = [watch(logits_fn, limit=limit) for limit in limits]
    return jax.jit(lambda params, step, **batch: [g.update(step, g.init(params), params, **batch)[1] for g in guards])


@given(seed=SEEDS)
def check_against_a_dense_jacobian(seed):
    params = on_device(weights(seed))
    step, (x, y) = random_like(params, seed), batch(seed)
    z, a = dense(params, step, x)
    p = jax.nn.softmax(z)
    *spreads, sigmoid, curved, kl = ratios(params, step, x, y, limits=(*SPREADS.values(), SIGMOID, CURVATURE, KL))
    for found, statistic in zip(spreads, STATISTICS.values(), strict=True):
        np.testing.assert_allclose(found, statistic(jnp.ptp(a, -1)) / jnp.pi, rtol=1e-9)
    np.testing.assert_allclose(sigmoid, jnp.abs(a).max() / jnp.pi, rtol=1e-9)
    variance = jax.vmap(lambda p, a: a @ (jnp.diag(p) - jnp.outer(p, p)) @ a)(p, a).mean()
    slope = ((p - jax.nn.one_hot(y, 4)) * a).sum(-1).mean()
    r = math.inf if slope >= 0 else variance / (-2 * slope)
    np.testing.assert_allclose(curved, r, rtol=1e-8)
    np.testing.assert_allclose(kl, math.sqrt(variance / 0.02), rtol=1e-9)


@given(seed=SEEDS, exponent=st.floats(-30, 30))
def check_r_is_homogeneous(seed, exponent):
    params, factor = on_device(weights(seed)), 10.0**exponent
    x, y = batch(seed)
    down = downhill(params, x, y)
    longer = jax.tree.map(lambda u: u * factor, down)
    told = np.array(ratios(params, down, x, y))
    np.testing.assert_allclose(ratios(params, longer, x, y), factor * told, rtol=1e-9)
    back = jax.tree.map(lambda u: -u, longer)
    np.testing.assert_allclose(ratios(params, back, x, y)[0], factor * told[0], rtol=1e-9)


@given(seed=SEEDS, shift=st.floats(-50, 50))
def check_a_shift_of_all_logits_changes_nothing(seed, shift):
    """Of the logits, and of how they move: a direction that adds to all classes is none."""
    params = {"net": on_device(weights(seed)), "all": jnp.zeros(())}
    x, y = batch(seed)

    step = downhill(params["net"], x, y)
    moved = ratios(params, {"net": step, "all": jnp.asarray(shift)}, (x, shift), y, logits_fn=shifted)
    np.testing.assert_allclose(moved, ratios(params["net"], step, x, y), rtol=1e-9)


def shifted(params, inputs):
    x, shift = inputs
    return network(params["net"], x) + params["all"] + shift


@given(seed=SEEDS, target=st.sampled_from((0.03, 1.0, 7.0)))
def check_the_applied_step_is_at_the_target(seed, target):
    params = on_device(weights(seed))
    step, (x, _) = random_like(params, seed), batch(seed)
    for make in (cap, pin):
        updates, record = take(compiled(make, network, target, limit=SPREADS["max"]), params, step, x)
        expected = min(1.0, target / record.ratio) if make is cap else target / record.ratio
        np.testing.assert_allclose(record.scale, expected, rtol=1e-12)
        np.testing.assert_allclose(ratio(SPREADS["max"], params, updates, x), record.applied_ratio, rtol=1e-9)


@given(seed=SEEDS)
def check_masked_samples_have_no_part(seed):
    """Whatever stands in them: the same r as of the batch without them."""
    params = on_device(weights(seed))
    step, (x, y) = random_like(params, seed), batch(seed)
    mask = np.random.default_rng(seed).permutation(len(y)) < 7
    odd = np.where(mask[:, None], x, np.nan), np.where(mask, y, -100)
    kept = ratios(params, step, x[mask], y[mask])
    np.testing.assert_allclose(ratios(params, step, *odd, mask), kept, rtol=1e-9)


def check_weights_of_samples_are_in_the_curvature():
    """A weight of 2 is a sample seen twice; for a spread it counts once."""
    params, (x, y) = on_device(weights()), batch(0)
    step = downhill(params, x, y)
    weight = np.array([2.0] * 3 + [1.0] * 9)
    twice = [np.concatenate([part[:3], part]) for part in (x, y)]
    found, expected = ratio(CURVATURE, params, step, x, y, weight), ratio(CURVATURE, params, step, *twice)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert abs(found / ratio(CURVATURE, params, step, x, y) - 1) > 1e-4
    found, expected = ratio(SPREADS["mean"], params, step, x, y, weight), ratio(SPREADS["mean"], params, step, x)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def check_where_no_sample_counts_spreads_are_of_all_and_curvatures_of_none():
    params, (x, y) = on_device(weights()), batch(0)
    step, nobody = random_like(params), np.zeros(len(y))
    for over in STATISTICS:
        of_all = ratio(SPREADS[over], params, step, x)
        np.testing.assert_allclose(ratio(SPREADS[over], params, step, x, y, nobody), of_all, rtol=1e-12)
    assert ratio(CURVATURE, params, step, x, y, nobody) == 0.0


def check_two_classes_in_closed_form():
    """One weight, two logits (0, w): spread |p|, variance P (1 - P) p^2, slope -(1 - P) p for label 1."""
    w, p, x, y = jnp.asarray(0.7), jnp.asarray(0.4), jnp.ones((1, 1)), jnp.array([1])

    def logits(w, x):
        return jnp.concatenate([0 * x, w * x], -1)

    likely = 1 / (1 + math.exp(-0.7))
    assert math.isclose(ratio(SPREADS["max"], w, p, x, y, logits_fn=logits), 0.4 / math.pi)
    assert math.isclose(ratio(CURVATURE, w, p, x, y, logits_fn=logits), likely * 0.4 / 2)
    assert math.isclose(ratio(KL, w, p, x, logits_fn=logits), 0.4 * math.sqrt(likely * (1 - likely) / 0.02))


def check_sgd_along_an_eigenvector_is_eta_lambda_over_2():
    for loss, eigenvalue in (("half_mse", 16.0), ("mse", 32.0), (lambda z, y: 3 * (z - y) ** 2, 96.0)):
        w, x, y = jnp.zeros((1, 1)), jnp.full((4, 1), 4.0), jnp.ones((4, 1))
        pull = -eigenvalue / 4  # dL/dw at w = 0
        found = ratio(curvature(loss), w, -0.05 * jnp.full((1, 1), pull), x, y, logits_fn=lambda w, x: x @ w)
        assert math.isclose(found, 0.05 * 16.0 / 2 * (1 if loss == "half_mse" else eigenvalue / 16.0)), loss


of = functools.cache(curvature)


@given(seed=SEEDS)
def check_losses_as_functions_are_those_by_name(seed):
    params = on_device(weights(seed))
    x, y = batch(seed)
    step = downhill(params, x, y)
    many = jax.nn.one_hot(y, 4) * 0.8 + 0.05
    pairs = [
        ("cross_entropy", cross_entropy, y),
        ("cross_entropy", optax.losses.softmax_cross_entropy, many),
        ("bce", optax.losses.sigmoid_binary_cross_entropy, many),
        ("half_mse", optax.losses.l2_loss, many),
        ("mse", optax.losses.squared_error, many),
    ]
    for name, function, labels in pairs:
        one, other = ratios(params, step, x, labels, limits=(of(name), of(function)))
        np.testing.assert_allclose(one, other, rtol=1e-8, err_msg=name)


def check_masked_classes_have_no_part():
    """A logit of -inf: r is that of the other classes alone."""
    params, (x, y) = on_device(weights()), batch(0)
    step, y = random_like(params), np.minimum(y, 2)

    def masked(params, x):
        return network(params, x).at[:, 3].set(-jnp.inf)

    def without(params, x):
        return network(params, x)[:, :3]

    for limit in (SPREADS["max"], CURVATURE):
        found = ratio(limit, params, step, x, y, logits_fn=masked)
        np.testing.assert_allclose(found, ratio(limit, params, step, x, y, logits_fn=without), rtol=1e-12)


@given(seed=SEEDS)
def check_inside_every_bit_stays(seed):
    for dtype in ("float64", "float32", "bfloat16"):
        params = jax.tree.map(lambda q, to=dtype: q.astype(to), on_device(weights(seed)))
        step = jax.tree.map(lambda u: u.at[0].set(-0.0), random_like(params, seed, 1e-3))
        x = batch(seed)[0].astype(params[0]["w"].dtype)
        updates, record = take(compiled(cap, network, 1.0, limit=SPREADS["max"]), params, step, x)
        assert (record.scale, record.status, record.exact) == (1.0, "inside", dtype != "bfloat16")
        for before, after in zip(jax.tree.leaves(step), jax.tree.leaves(updates), strict=True):
            assert before.dtype == after.dtype
            assert np.asarray(before).tobytes() == np.asarray(after).tobytes()


def check_what_is_not_finite_becomes_zero_and_is_told():
    params, (x, y) = on_device(weights()), batch(0)
    for bad in (jnp.nan, jnp.inf):
        step = random_like(params)
        step[0]["w"] = step[0]["w"].at[0, 0].set(bad)
        for make in (cap, pin):
            updates, record = take(make(network), params, step, x, y)
            assert all(not leaf.any() for leaf in jax.tree.leaves(updates))
            assert (record.status, record.scale, record.applied_length) == ("undone", 0.0, 0.0)
            assert record.message.startswith("the step is not finite")
            assert math.isnan(record.ratio)
        updates, record = take(watch(network), params, step, x, y)
        assert record.status == "nonfinite"
        np.testing.assert_array_equal(updates[0]["w"], step[0]["w"])
    updates, record = take(cap(network), params, random_like(params), x * np.nan, y)  # r is not, the step is
    assert (record.status, record.scale) == ("undone", 0.0)
    assert 0.0 < record.step_length < math.inf
    updates, record = take(cap(network), params, random_like(params), x, y - 100)  # labels that nobody masked
    assert record.status == "undone"
    assert "a label is no class and not masked" in record.message
    updates, record = take(cap(network, lambda step: 0.0 * step), params, random_like(params), x, y)
    assert (record.status, record.target, record.message) == ("undone", 0.0, "the target 0 is not positive")


def check_a_step_that_moves_nothing():
    params, (x, y) = on_device(weights()), batch(0)
    nothing = jax.tree.map(jnp.zeros_like, params)
    for make in (cap, pin, throttle, watch):
        _, record = take(make(network), params, nothing, x, y)
        assert (record.status, record.scale, record.ratio, record.step_length) == ("still", 1.0, 0.0, 0.0)
    shift = [jax.tree.map(jnp.zeros_like, params[0]), {"w": nothing[1]["w"], "b": jnp.ones(4)}]  # of all classes
    updates, record = take(pin(network, limit=spread()), params, shift, x)
    assert (record.status, record.radius) == ("unbounded", math.inf)
    np.testing.assert_array_equal(updates[1]["b"], 1.0)


def check_steps_of_any_size_in_float32():
    """Lengths whose squares overflow or vanish in float32 are capped like any other."""
    params = jax.tree.map(lambda q: q.astype("float32"), on_device(weights()))
    x, y = batch(0)
    x = x.astype("float32")
    down = downhill(params, x, y)
    r, length = ratio(DEFAULT, params, down, x, y), float(optax.tree.norm(down))
    for factor in (1e-25, 1e25):
        step = jax.tree.map(lambda u, by=factor: u * np.float32(by), down)
        _, record = take(compiled(cap, network, 0.01), params, step, x, y)
        np.testing.assert_allclose([record.ratio, record.step_length], [r * factor, length * factor], rtol=1e-5)
        assert record.status == ("capped" if factor > 1 else "inside")


def check_a_throttle_remembers():
    """Order 1 by hand; an uphill step and one that is not finite leave alpha where it was."""
    params, (x, y) = on_device(weights()), batch(0)
    down = downhill(params, x, y)
    tx = throttle(network, order=1, gain=0.1, start=0.2)
    state, alpha = tx.init(params), 0.2
    r = ratio(CURVATURE, params, down, x, y)
    for factor, learns in ((1.0, True), (-1.0, False), (jnp.nan, False), (2.0, True)):
        step = jax.tree.map(lambda u, by=factor: by * u, down)
        _, state = tx.update(step, state, params, inputs=x, labels=y)
        alpha = min(1.0, max(0.0, alpha + 0.1 * (1.5 - alpha * 2 * factor * r))) if learns else alpha
        np.testing.assert_allclose(state.alpha, alpha, rtol=1e-9)
        assert (float(state.scale) == 0.0) is not learns


def refused(kind, words, make, *arguments):
    with pytest.raises(kind, match=words):
        make(*arguments)


def check_what_cannot_be_is_refused_in_words():
    params, (x, y) = on_device(weights()), batch(0)
    step = random_like(params)
    for target in (0.0, -1.0, math.nan):
        refused(ValueError, "expected a positive number", cap, network, target)
    refused(ValueError, "finite target", pin, network, math.inf)
    refused(ValueError, "chi=2.5", lambda: throttle(network, chi=2.5))
    refused(ValueError, "over=1.5", spread, 1.5)
    refused(ValueError, "loss='hinge'", curvature, "hinge")
    refused(ValueError, "max_kl=0", divergence, 0.0)
    refused(ValueError, "at least one limit", tightest, {})
    refused(TypeError, "expected a dict", tightest, [spread()])
    refused(ValueError, "'mse'; for another loss a function", curvature, "hinge")
    refused(AttachError, "logits_fn = 0.1", cap, 0.1)
    refused(AttachError, "limit = 'softmax'", lambda: pin(network, limit="softmax"))
    refused(AttachError, "limit = spread, not called", lambda: watch(network, limit=spread))
    for limit in LIMITS:
        refused(AttachError, "target = a limit", cap, network, limit)
    refused(ValueError, "use curvature", default_limit, "mse")
    refused(ValueError, "head='softmax'", default_limit, cross_entropy)
    refused(AttachError, "saw no inputs", lambda: cap(network).update(step, cap(network).init(params), params))
    refused(AttachError, "no parameters", lambda: cap(network).update(step, cap(network).init(params), inputs=x))
    part = optax.masked(cap(network), [{"w": True, "b": True}, {"w": True, "b": False}])
    refused(AttachError, "behind them", take, part, params, step, x, y)
    with pytest.raises(TypeError) as raised:
        take(cap(lambda x, q: network(q, x)), params, step, x, y)
    assert "logits_fn(params, inputs)" in raised.value.__notes__[0]
    refused(MeasurementError, "needs the labels", take, cap(network), params, step, x)
    refused(MeasurementError, "labels of shape", take, cap(network), params, step, x, y[:, None])
    refused(MeasurementError, "one label an output", take, throttle(network, "bce"), params, step, x, y)
    refused(MeasurementError, "mask of shape", take, cap(network), params, step, x, y, np.ones((3, 4)))
    refused(NothingToMeasureError, "empty batch", take, cap(network), params, step, x[:0], y[:0])
    refused(MeasurementError, "shape \\(12,\\)", take, cap(lambda q, x: network(q, x)[:, 0]), params, step, x, y)
    refused(MeasurementError, "a tuple", take, cap(lambda q, x: (network(q, x), 1.0)), params, step, x, y)
    refused(OneLogitError, "one output", take, cap(lambda q, x: network(q, x)[:, :1]), params, step, x, y * 0)
    average = curvature(lambda z, y: cross_entropy(z, y).mean())
    refused(LossMismatchError, "not yet averaged", take, cap(network, limit=average), params, step, x, y)
