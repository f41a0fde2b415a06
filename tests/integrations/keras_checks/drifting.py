"""The drift experiment: the same curves as the by-hand recursion and as the torch guard, and never above chi."""

from __future__ import annotations

import functools
import math

import keras
import numpy as np
import torch
from common import Places, half_mse, teacher

import safestep
from safestep.formulas.throttle_laws import order_0, running_mean, secant_curvature
from safestep.integrations.keras import Throttled, ThrottleLog

RATE, GAIN, CHI, WARMUP, STEPS = 0.5, 4.0, 1.5, 20, 100
RESOLVED = 1e-6
"""Loss down to which float32 is compared step by step; below, the gradient is lost in the rounding of the targets."""


def start():
    return np.random.default_rng(7).uniform(-1, 1, size=(4, 2))


@functools.cache
def curves(throttled):
    """Return the losses of a linear student whose inputs are multiplied by a gain, and what the throttle logged."""
    x, y = (data.astype("float32") for data in teacher())
    dense = keras.layers.Dense(2, use_bias=False)
    model = keras.Sequential([keras.Input((4,)), dense])
    dense.kernel.assign(start())
    options = {"batch_size": len(x), "shuffle": False, "verbose": 0}
    model.compile(keras.optimizers.SGD(RATE), half_mse)
    losses = model.fit(x, y, epochs=WARMUP, **options).history["loss"]
    optimizer, log = keras.optimizers.SGD(RATE), ThrottleLog()
    model.compile(Throttled(optimizer, chi=CHI) if throttled else optimizer, half_mse)
    callbacks = [log] if throttled else []
    losses += model.fit(GAIN * x, y, epochs=STEPS, callbacks=callbacks, **options).history["loss"]
    return np.array(losses), log.rows


@functools.cache
def by_hand(throttled):
    """Return losses, alphas and margins of all steps, in float64."""
    x, y = teacher()
    w, mean, last, rows = start(), 0.0, None, []
    for step in range(WARMUP + STEPS):
        inputs = x if step < WARMUP else GAIN * x
        error = inputs @ w - y
        loss, gradient = (error**2).sum() / (2 * len(x)), inputs.T @ error / len(x)
        alpha, margin = 1.0, 0.0
        if step >= WARMUP and throttled:
            curvature = 0.0
            if last is not None:
                curvature = secant_curvature(np.linalg.norm(gradient - last[0]), np.linalg.norm(w - last[1]))
            mean = running_mean(mean, curvature)
            margin = RATE * max(curvature, mean)
            alpha, last = float(order_0(margin, CHI)), (gradient, w)
        rows.append((loss, alpha, margin))
        with np.errstate(over="ignore"):
            w = w - alpha * RATE * gradient
    return tuple(np.array(rows).T)


def check_the_curves_are_those_of_the_recursion():
    losses, rows = curves(True)
    expected, alphas, margins = by_hand(True)
    few = WARMUP + int(np.argmax(expected[WARMUP:] < RESOLVED))
    assert few > WARMUP + 20
    np.testing.assert_allclose(losses[:few], expected[:few], rtol=2e-3)
    np.testing.assert_allclose([row["alpha"] for row in rows[: few - WARMUP]], alphas[WARMUP:few], rtol=2e-3)
    np.testing.assert_allclose([row["margin"] for row in rows[: few - WARMUP]], margins[WARMUP:few], rtol=2e-3)
    assert losses[few:].max() < 2 * RESOLVED


def check_the_curves_are_those_of_the_torch_guard():
    losses, rows = curves(True)
    x, y = (torch.tensor(data, dtype=torch.float32) for data in teacher())
    model = torch.nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(start().T))
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    seen, alphas = [], []
    for step in range(WARMUP + STEPS):
        if step == WARMUP:
            guard = safestep.attach(
                model, optimizer, radius=safestep.SecantCurvature(), policy=safestep.Throttle(chi=CHI)
            )
        optimizer.zero_grad()
        loss = (model(x if step < WARMUP else GAIN * x) - y).square().sum() / (2 * len(x))
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
        if step >= WARMUP:
            alphas.append(guard.last.scale)
    few = WARMUP + int(np.argmax(np.array(seen[WARMUP:]) < RESOLVED))
    assert few > WARMUP + 20
    np.testing.assert_allclose(losses[:few], seen[:few], rtol=2e-3)
    np.testing.assert_allclose([row["alpha"] for row in rows[: few - WARMUP]], alphas[: few - WARMUP], rtol=2e-3)


def check_never_above_chi():
    _, rows = curves(True)
    assert max(row["applied_margin"] for row in rows) <= CHI * (1 + 1e-6)
    assert sum(row["alpha"] < 1.0 for row in rows) == STEPS - 1


def check_never_above_chi_by_the_weights_alone():
    """The margin of the applied steps, from where the weights went, in float64: C ||theta_t+1 - theta_t|| / ||g||."""
    x, y = teacher()
    x = (GAIN * x).astype("float32")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, use_bias=False)])
    model.compile(Throttled(keras.optimizers.SGD(RATE), chi=CHI), half_mse)
    places, log = Places(), ThrottleLog()
    model.fit(x, y.astype("float32"), 1000, 40, shuffle=False, verbose=0, callbacks=[places, log])
    weights = [place[0].astype(float) for place in places.places]
    gradients = [x.T.astype(float) @ (x.astype(float) @ w - y) / len(x) for w in weights]
    mean, applied = 0.0, []
    for t in range(1, 40):
        if np.linalg.norm(weights[t + 1] - weights[t]) < 1e-4 * np.linalg.norm(weights[t]):
            break
        curvature = np.linalg.norm(gradients[t] - gradients[t - 1]) / np.linalg.norm(weights[t] - weights[t - 1])
        mean = running_mean(mean, curvature)
        length = np.linalg.norm(weights[t + 1] - weights[t])
        applied.append(max(curvature, mean) * length / np.linalg.norm(gradients[t]))
    assert len(applied) > 10
    assert max(applied) <= CHI * (1 + 1e-3)
    assert min(applied) >= CHI * (1 - 1e-3)  # order 0 goes as far as it may


def check_without_a_throttle_it_diverges():
    losses, _ = curves(False)
    expected, _, _ = by_hand(False)
    finite = np.isfinite(losses)
    assert not finite.all()
    np.testing.assert_allclose(losses[finite & (losses < 1e30)], expected[finite & (losses < 1e30)], rtol=1e-2)
    assert math.isclose(losses[WARMUP + 5] / losses[WARMUP + 4], 58.9, rel_tol=0.05)
