"""Guards in jax and in torch on the same weights and batches: the same r, s, lengths, divergences and weights."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from networks import batch, in_torch, network, on_device, weights

import safestep
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
from safestep.radius.kl import KLRadius

SQUARED = {"mse", "half_mse"}


def labels_of(loss, y):
    """Return labels as a loss wants them, for torch; those of a cross-entropy ignore class 3, but for a KL of all."""
    if loss.startswith("cross_entropy"):
        return torch.tensor(np.where(y == 3, -100, y) if loss == "cross_entropy" else y)
    return torch.tensor(np.eye(4)[y] + (0.3 if loss in SQUARED else 0.0))


LOSSES = {
    "cross_entropy": torch.nn.functional.cross_entropy,
    "cross_entropy of all": torch.nn.functional.cross_entropy,
    "bce": torch.nn.functional.binary_cross_entropy_with_logits,
    "mse": torch.nn.functional.mse_loss,
    "half_mse": lambda z, y: (z - y).square().sum(-1).mean() / 2,
}


def agree(tx, radius, policy, loss="cross_entropy", *, rate=3.0, steps=10, turn=None):
    """Train both, and compare every record and the weights; return the records of jax.

    At the step ``turn`` all labels, which were 0 until then, become 1.
    """
    start = weights()
    model, params = in_torch(start), on_device(start)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    guard = safestep.attach(model, optimizer, radius=radius, policy=policy)
    chain = optax.chain(optax.sgd(rate, 0.9), tx)

    def update(params, state, gradient, x, y, mask):
        updates, state = chain.update(gradient, state, params, inputs=x, labels=y, mask=mask)
        return optax.apply_updates(params, updates), state

    step, state, records = jax.jit(update), chain.init(params), []
    for index in range(steps):
        x, y = batch(index)
        y = y if turn is None else np.full_like(y, index >= turn)
        labels = labels_of(loss, y)
        optimizer.zero_grad()
        LOSSES[loss](model(torch.tensor(x)), labels).backward()
        # the same gradients on both sides, so that chaotic steps do not drift apart
        linears = [m for m in model if isinstance(m, torch.nn.Linear)]
        gradient = [{"w": jnp.asarray(m.weight.grad.numpy()), "b": jnp.asarray(m.bias.grad.numpy())} for m in linears]
        optimizer.step()
        mask = jnp.asarray(y != 3) if loss == "cross_entropy" else None
        params, state = step(params, state, gradient, x, jnp.asarray(labels.numpy()), mask)
        mine, told = read(state), guard.last
        records.append(mine)
        for name in ("ratio", "scale", "applied_ratio", "target", "radius", "step_length", "applied_length"):
            np.testing.assert_allclose(getattr(mine, name), getattr(told, name), rtol=1e-6, err_msg=f"{index} {name}")
        if not math.isnan(told.predicted_kl):
            np.testing.assert_allclose(mine.predicted_kl, told.predicted_kl, rtol=1e-6, atol=1e-15)
        assert (mine.step, mine.status) == (told.step, told.status)
        for layer, module in zip(params, linears, strict=True):
            np.testing.assert_allclose(layer["w"], module.weight.detach().numpy(), rtol=1e-6, atol=1e-12)
    assert step._cache_size() == 1  # compiled once
    guard.detach()
    return records


def statuses(records):
    return {str(record.status) for record in records}


def soft(**options):
    return safestep.SoftmaxRadius(method="exact", **options)


def check_largest_spread():
    assert statuses(agree(cap(network, 0.5, limit=spread()), soft(), safestep.Cap(0.5))) == {"capped"}


def check_mean_spread_under_a_schedule():
    records = agree(
        cap(network, lambda step: 4.0 * 0.5**step, limit=spread("mean")),
        soft(over="mean"),
        safestep.Cap(lambda step: 4.0 * 0.5**step),
        rate=0.5,
    )
    assert statuses(records) == {"inside", "capped"}


def check_quantile():
    agree(pin(network, 0.3, limit=spread(0.7)), soft(over=0.7), safestep.Pin(0.3))


def check_sigmoid_spread():
    agree(cap(network, 0.2, limit=spread(head="sigmoid")), soft(head="sigmoid"), safestep.Cap(0.2), "bce")


def check_curvature_of_every_loss():
    for loss in ("cross_entropy", "bce", "mse", "half_mse"):
        radius, rate = safestep.CurvatureRadius(loss), 0.6 if loss in SQUARED else 3.0
        found = statuses(agree(cap(network, 0.45, limit=curvature(loss)), radius, safestep.Cap(0.45), loss, rate=rate))
        assert "capped" in found, (loss, found)


def check_uphill_is_held():
    """Momentum that was gathered towards one label points away from another."""
    records = agree(
        cap(network, 0.9, limit=curvature()),
        safestep.CurvatureRadius("cross_entropy"),
        safestep.Cap(0.9),
        rate=0.05,
        turn=8,
        steps=12,
    )
    held = [record for record in records if record.status == "held"]
    assert held
    assert all(record.scale == 0.0 and record.ratio == math.inf for record in held)


def check_divergence():
    records = agree(
        pin(network, 1.0, limit=divergence(0.02)), KLRadius(0.02), safestep.Pin(1.0), "cross_entropy of all"
    )
    assert all(abs(record.predicted_kl - 0.02) < 1e-12 for record in records)


def check_every_order_of_the_throttle():
    for options in (
        {},
        {"order": 1, "start": 1.0},
        {"order": 2, "gain": 0.2, "damping": 0.5},
        {"low": 0.1, "high": 0.5},
    ):
        records = agree(
            throttle(network, "half_mse", **options),
            safestep.CurvatureRadius("half_mse"),
            safestep.Throttle(**options),
            "half_mse",
            rate=0.3,
        )
        assert "throttled" in statuses(records), options


def check_tightest_of_two():
    limits = {curvature(): 0.45, spread("mean"): 0.05}
    radius = safestep.Tightest({safestep.CurvatureRadius("cross_entropy"): 0.45, soft(over="mean"): 0.05})
    agree(cap(network, 1.0, limit=tightest(limits)), radius, safestep.Cap(1.0))


def check_default_limit_is_that_of_torch_until_it_has_looked_back():
    for loss in ("cross_entropy", "bce"):
        agree(
            cap(network, limit=default_limit(loss)), safestep.default_limit().exact(), safestep.Cap(1.0), loss, steps=1
        )
    (record,) = agree(cap(network), safestep.default_limit().exact(), safestep.Cap(1.0), steps=1)
    assert record.status == "capped"
    for targets in ((0.9, 1.5), (0.9, 0.5)):
        as_under_sgd = safestep.default_limit(curvature=targets[0], spread=targets[1]).exact()
        agree(cap(network, limit=default_limit(targets=targets)), as_under_sgd, safestep.Cap(1.0), steps=1)


def check_watch():
    records = agree(watch(network, limit=spread()), soft(), safestep.Watch(), rate=20.0)
    assert statuses(records) == {"watched"}
    assert max(record.ratio for record in records) > 1.0
