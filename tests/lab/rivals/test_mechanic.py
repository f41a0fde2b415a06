"""Mechanic is optax's, by its authors, step by step."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from safestep.lab.rivals.mechanic import Mechanic

optax = pytest.importorskip("optax")
jax = pytest.importorskip("jax")

CURVATURES = [1.0, 4.0, 0.3]
START = [1.0, -2.0, 3.0]


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_it_takes_the_steps_of_optax(kind):
    # a tiny eps: theirs is in the Δ that it takes from the weights, ours stores Δ. Later on, where steps
    # are unstable, the rounding of that grows from 1e-12 to 1e-5
    eps = 1e-30
    weight = nn.Parameter(torch.tensor(START, dtype=torch.float64))
    base = SGD([weight], lr=1.0) if kind == "sgd" else Adam([weight], lr=1.0)
    ours = Mechanic(base, eps=eps)
    with jax.enable_x64(True):
        theirs = jax.numpy.array(START)
        inner = optax.sgd(1.0) if kind == "sgd" else optax.adam(1.0)
        transform = optax.contrib.mechanize(inner, eps=eps)
        state = transform.init(theirs)
        bends = jax.numpy.array(CURVATURES)
        for _ in range(50):
            ours.step(lambda: (torch.tensor(CURVATURES, dtype=torch.float64) * weight**2).sum() / 2)
            updates, state = transform.update(bends * theirs, state, theirs)
            theirs = optax.apply_updates(theirs, updates)
            assert weight.tolist() == pytest.approx(theirs.tolist(), rel=0, abs=1e-9)
    assert weight.abs().max() < 0.9 * 3.0  # it has moved


def test_the_first_step_is_the_optimizers_times_the_first_scale():
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    Mechanic(SGD([weight], lr=1.0), first=0.06).step(lambda: torch.sum(3 * weight))
    # nothing is summed yet, so nothing was won: each of six scales is 0.06 / 6 of ε / ε
    assert weight.item() == pytest.approx(2.0 - 0.06 * 3.0)
