"""Throttled: untouched while alpha is 1, never above chi, saved and resumed equally, options of the wrapped one."""

from __future__ import annotations

import csv
import json
import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np
import torch
from common import LOGITS, array, assert_same, classes, classifier, half_mse, refused, snapshot, teacher

from safestep.errors import AttachError, SafestepWarning
from safestep.formulas import throttle_laws as laws
from safestep.integrations.keras import Throttled, ThrottleLog
from safestep.integrations.keras.secant_law import next_scale
from safestep.policy.throttle import Throttle

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam
WHOLE = {"batch_size": 1000, "shuffle": False, "verbose": 0}


def student(optimizer, gain=4.0, **layer):
    """Return a linear student whose plain gradient descent at 0.5 diverges, compiled, and its data."""
    x, y = teacher()
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, use_bias=False, **layer)])
    model.compile(optimizer, half_mse)
    return model, (gain * x).astype("float32"), y.astype("float32")


def untouched(make, *, noisy=False, batch=64):
    x, y = classes()
    found = []
    for throttled in (False, True):
        optimizer, log = make(), ThrottleLog("batch")
        model = classifier(noisy=noisy)
        model.compile(Throttled(optimizer, chi=1.99) if throttled else optimizer, LOGITS)
        keras.utils.set_random_seed(2)
        history = model.fit(x, y, batch, 6, shuffle=False, verbose=0, callbacks=[log] if throttled else []).history
        found.append(([np.array(history["loss"])], snapshot(model, optimizer)))
    assert {row["alpha"] for row in log.rows} == {1.0}
    assert max(row["margin"] for row in log.rows) > 1e-3  # it was measured
    for one, other in zip(*found, strict=True):
        assert_same(one, other)


def check_untouched_sgd_with_schedule_and_global_clipnorm():
    rate = keras.optimizers.schedules.ExponentialDecay(0.02, 2, 0.9)
    untouched(lambda: SGD(rate, global_clipnorm=0.5), noisy=True, batch=16)


def check_untouched_nesterov_with_clipvalue_and_loss_scale_factor():
    untouched(lambda: SGD(0.01, momentum=0.9, nesterov=True, clipvalue=0.1, loss_scale_factor=64.0))


def check_untouched_adam_with_accumulation():
    untouched(lambda: Adam(1e-3, gradient_accumulation_steps=2), batch=32)


def check_untouched_adamw_with_clipnorm():
    untouched(lambda: keras.optimizers.AdamW(1e-3, weight_decay=0.1, clipnorm=0.5))


def check_untouched_lion():
    untouched(lambda: keras.optimizers.Lion(1e-3))


def check_never_above_chi_in_minibatches():
    """A classifier whose inputs drift, mini-batches, a learning rate far too large."""
    x, y = classes()
    model, log = classifier(noisy=False), ThrottleLog("batch")
    model.compile(Throttled(SGD(0.5), chi=1.2), LOGITS)
    model.fit(x, y, 16, 2, verbose=0, callbacks=[log])
    model.fit(20 * x, y, 16, 3, verbose=0, callbacks=[log])
    assert len(log.rows) == 20
    assert min(row["alpha"] for row in log.rows) < 0.2
    assert max(row["applied_margin"] for row in log.rows) <= 1.2 * (1 + 1e-6)


def check_orders_are_the_laws_of_formulas():
    rng = np.random.default_rng(0)
    for order in (0, 1, 2):
        law = Throttle(chi=1.3, order=order, gain=0.2, damping=0.7, low=0.05, high=0.9)
        expected = speed = torch.tensor(0.3, dtype=torch.float64)
        ours, pace = keras.ops.array(0.3, "float32"), keras.ops.array(0.3, "float32")
        for margin in (0.0, *rng.uniform(0, 6, 20)):
            ours, pace = next_scale(law, ours, pace, keras.ops.array(margin, "float32"))
            if order == 0:
                expected = laws.order_0(margin, 1.3, 0.05, 0.9)
            elif order == 1:
                expected = laws.order_1(expected, margin, 1.3, 0.2, 0.05, 0.9)
            else:
                expected, speed = laws.order_2(expected, speed, margin, 1.3, 0.2, 0.7, 0.05, 0.9)
            assert abs(float(ours) - float(expected)) < 1e-5, (order, margin, ours, expected)


def check_config_round_trips():
    rate = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9)
    inner = Adam(rate, clipnorm=1.0, weight_decay=0.01, gradient_accumulation_steps=4)
    one = Throttled(inner, 1.2, 2, 0.1, 0.2, 0.7, 0.5, 0.1, 0.9, name="mine")
    config = json.loads(json.dumps(one.get_config()))
    two = Throttled.from_config(config)
    assert two.get_config() == one.get_config()
    law = Throttle(chi=1.2, order=2, gain=0.2, damping=0.7, start=0.5, low=0.1, high=0.9)
    assert two.law == one.law == law
    assert two.secant.beta == 0.1
    three = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(one))
    assert three.get_config() == one.get_config()
    assert config["optimizer"]["config"]["clipnorm"] == 1.0


def check_saved_and_loaded_continues_equally():
    for order, inner in ((0, SGD(0.5)), (1, Adam(0.5)), (2, SGD(0.5))):
        model, x, y = student(Throttled(inner, order=order))
        model.fit(x, y, epochs=4, **WHOLE)
        with tempfile.TemporaryDirectory() as folder:
            model.save(f"{folder}/model.keras")
            loaded = keras.models.load_model(f"{folder}/model.keras", custom_objects={"half_mse": half_mse})
        assert isinstance(loaded.optimizer, Throttled)
        assert_same(snapshot(model, model.optimizer), snapshot(loaded, loaded.optimizer))
        logs = [m.fit(x, y, epochs=5, callbacks=[ThrottleLog()], **WHOLE).history for m in (model, loaded)]
        assert logs[0] == logs[1]
        assert any(alpha not in {0.0, 1.0} for alpha in logs[0]["alpha"]), logs[0]["alpha"]
        assert_same(snapshot(model, model.optimizer), snapshot(loaded, loaded.optimizer))


def alphas(optimizer, epochs=8, *, batch=1000):
    model, x, y = student(optimizer)
    log = ThrottleLog("batch")
    model.fit(x, y, batch, epochs, shuffle=False, verbose=0, callbacks=[log])
    return np.array([row["alpha"] for row in log.rows]), snapshot(model)


def check_accumulated_batches_are_one_batch():
    (whole, place), (parts, same) = (
        alphas(Throttled(SGD(0.5)), 8),
        alphas(Throttled(SGD(0.5, gradient_accumulation_steps=2)), 8, batch=500),
    )
    assert len(parts) == 16
    np.testing.assert_allclose(parts[1::2], whole, rtol=1e-4)
    np.testing.assert_allclose(same[0], place[0], atol=1e-4 * np.abs(place[0]).max())


def check_loss_scales_do_not_matter():
    plain, _ = alphas(Throttled(SGD(0.5)))
    assert plain.min() < 0.2
    for optimizer in (
        Throttled(SGD(0.5, loss_scale_factor=512.0)),
        keras.optimizers.LossScaleOptimizer(Throttled(SGD(0.5)), initial_scale=256.0),
        keras.optimizers.LossScaleOptimizer(Throttled(SGD(0.5, loss_scale_factor=512.0)), initial_scale=256.0),
    ):
        np.testing.assert_allclose(alphas(optimizer)[0], plain, rtol=1e-4)


def check_mixed_float16_puts_its_loss_scale_around():
    x, y = classes()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, log = classifier(noisy=False), ThrottleLog("batch")
        model.compile(Throttled(SGD(0.5), chi=0.5), LOGITS)
        model.fit(10 * x, y, 16, 2, verbose=0, callbacks=[log])
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert isinstance(model.optimizer.inner_optimizer, Throttled)
    assert 0.0 < min(row["alpha"] for row in log.rows) < 0.5
    assert max(row["applied_margin"] for row in log.rows) <= 0.5 * (1 + 1e-6)


def check_clipping_and_decay_are_in_the_update():
    """The margin is of the update as it is: a gradient clipped to a hundredth goes a hundredth as far."""
    free, _ = alphas(Throttled(SGD(0.5)), 3)
    clipped, _ = alphas(Throttled(SGD(0.5, global_clipnorm=1e-3)), 3)
    assert free[1] < 0.2
    assert (clipped == 1.0).all()
    model, x, y = student(Throttled(SGD(0.5, weight_decay=0.1)))
    start = array(model.trainable_variables[0])
    model.fit(x, y, epochs=2, **WHOLE)
    first = array(model.trainable_variables[0])
    model.fit(x, y, epochs=1, **WHOLE)
    moved, alpha = array(model.trainable_variables[0]) - first, float(model.optimizer.alpha.value)
    gradient = x.T.astype(float) @ (x.astype(float) @ first - y) / len(x)
    raw = first * (1 - 0.1 * 0.5) - 0.5 * gradient - first
    assert alpha < 0.3
    np.testing.assert_allclose(moved, alpha * raw, rtol=1e-3, atol=1e-6 * np.abs(start).max())


def check_rate_and_iterations_are_the_wrapped_ones():
    model, x, y = student(Throttled(SGD(0.5)))
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.25 * rate)
    history = model.fit(x, y, epochs=2, callbacks=[schedule], **WHOLE).history
    assert history["learning_rate"] == [0.125, 0.03125]
    assert float(model.optimizer.inner.learning_rate.value) == 0.03125
    assert int(model.optimizer.iterations.value) == 2


def check_constraints_hold_after_scaling():
    model, x, y = student(Throttled(SGD(0.5)), kernel_constraint=keras.constraints.UnitNorm(axis=0))
    log = ThrottleLog()
    model.fit(x, y, epochs=4, callbacks=[log], **WHOLE)
    assert log.rows[-1]["alpha"] < 1.0
    np.testing.assert_allclose(np.linalg.norm(array(model.trainable_variables[0]), axis=0), 1.0, rtol=1e-5)


def check_a_step_that_is_not_finite_is_taken_back_whole():
    x, y = classes(48)
    bad = x.copy()
    bad[16:32, 0] = np.nan
    found = []
    for inputs, labels, warned in ((bad, y, 1), (np.delete(x, range(16, 32), 0), np.delete(y, range(16, 32)), 0)):
        inner, log = Adam(0.01), ThrottleLog("batch")
        model = classifier(noisy=False)
        model.compile(Throttled(inner), LOGITS)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", SafestepWarning)
            model.fit(inputs, labels, 16, 2, shuffle=False, verbose=0, callbacks=[log])
        assert len([w for w in said if w.category is SafestepWarning]) == warned
        assert log.rows[-1]["undone"] == 2 * warned
        found.append([*snapshot(model, inner), *map(array, model.optimizer._gradients + model.optimizer._places)])
    assert_same(*found)
    assert all(np.isfinite(a).all() for a in found[0])


def check_what_cannot_be_throttled_is_refused():
    for optimizer, words in (
        (keras.optimizers.LossScaleOptimizer(SGD(0.1)), "LossScaleOptimizer(Throttled(...))"),
        (SGD(0.1, use_ema=True), "use_ema=True"),
        (Throttled(SGD(0.1)), "one throttle is enough"),
    ):
        with refused(AttachError, words):
            Throttled(optimizer)
    for option, value in {
        "chi": 2.0, "order": 3, "beta": -0.1, "gain": 0.0, "damping": 1.0, "start": 1.5, "low": 1.1, "high": 0.0,
    }.items():  # fmt: skip
        with refused(AttachError, f"={value}"):
            Throttled("sgd", **{option: value})
    variable = keras.Variable([1.0])
    variable.overwrite_with_gradient = True
    with refused(AttachError, "float8"):
        Throttled("sgd").build([variable])
    with refused(AttachError, "build"):
        Throttled("sgd").apply([keras.ops.ones(2)])


def check_the_log_is_seen_by_other_callbacks():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.csv"
        model, x, y = student(Throttled(SGD(0.5)))
        log = ThrottleLog("batch")
        history = model.fit(
            x, y, 500, 3, shuffle=False, verbose=0, callbacks=[log, keras.callbacks.CSVLogger(str(path))]
        ).history
        with path.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    columns = {"alpha", "margin", "applied_margin", "curvature", "undone"}
    assert columns <= set(history) & set(rows[0])
    assert [float(row["alpha"]) for row in rows] == history["alpha"]
    assert history["alpha"][1] == min(row["alpha"] for row in log.rows if row["epoch"] == 1)
    assert json.loads(json.dumps(log.rows)) == log.rows
    assert [(row["epoch"], row["batch"]) for row in log.rows] == [(e, b) for e in range(3) for b in range(2)]
    plain, x, y = student(SGD(0.01))
    with refused(AttachError, "compiled with SGD"):
        plain.fit(x, y, verbose=0, callbacks=[ThrottleLog()])
    with refused(ValueError, "every='never'"):
        ThrottleLog("never")


def check_a_custom_loop_without_fit():
    """Variables by list, a missing gradient, and no step at all for no gradients."""
    used, unused = keras.Variable([1.0, 2.0]), keras.Variable([3.0])
    optimizer = Throttled(SGD(3.0), chi=1.5)
    optimizer.apply([keras.ops.array([1.0, 2.0]), keras.ops.array([0.0])], [used, unused])
    np.testing.assert_allclose(array(used), [-2.0, -4.0])  # unprotected
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras says that there is none
        optimizer.apply([keras.ops.array([-2.0, -4.0]), None], [used, unused])
    assert abs(float(optimizer.margin.value) - 3.0) < 1e-6  # eta lambda
    np.testing.assert_allclose(array(used), [1.0, 2.0], rtol=1e-6)  # half of eta
    optimizer.apply([], [])
    assert int(optimizer.iterations.value) == 2
