"""Mechanic is optax's, by its authors, step by step."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from processes import FAST_COMPILING, run
from safestep.lab.rivals.mechanic import Mechanic

CURVATURES, START = [1.0, 4.0, 0.3], [1.0, -2.0, 3.0]
# a tiny eps: theirs is in the Δ that it takes from the weights, ours stores Δ. Later on, where steps are unstable, the
# rounding of that grows from 1e-12 to 1e-5
EPS, STEPS = 1e-30, 50
OPTAX = f"""
import json, jax, optax
weights = jax.numpy.array({START})
transform = optax.contrib.mechanize(optax.KIND(1.0), eps={EPS})
state, way = transform.init(weights), []
for step in range({STEPS}):
    gradient = (LAST if step % 4 == 3 else 1.0) * jax.numpy.array({CURVATURES}) * weights
    updates, state = transform.update(gradient, state, weights)
    weights = optax.apply_updates(weights, updates)
    way.append(weights.tolist())
print(json.dumps(way))
"""


@pytest.mark.parametrize(("kind", "base"), [("sgd", SGD), ("adam", Adam)])
@pytest.mark.parametrize("last", [1.0, -2.0])
def test_it_takes_the_steps_of_optax(kind, base, last):
    # jax in a process of its own: it settles precision when it is imported, and warns of every fork from then on
    settings = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1", **FAST_COMPILING}
    way = json.loads(run("-c", OPTAX.replace("KIND", kind).replace("LAST", str(last)), **settings))
    curvatures, start = torch.tensor([CURVATURES, START], dtype=torch.float64)
    weight = nn.Parameter(start.clone())
    ours = Mechanic(base([weight], lr=1.0), eps=EPS)
    for step, there in enumerate(way):
        # every fourth step may lose, so that some scales have won nothing in all; then it comes not far
        factor = last if step % 4 == 3 else 1.0
        ours.step(lambda factor=factor: factor * torch.sum(curvatures * weight**2) / 2)
        moved = weight.detach() - start
        torch.testing.assert_close(moved, torch.tensor(there, dtype=torch.float64) - start, rtol=1e-6, atol=1e-11)
    assert len(way) == STEPS
    assert moved.abs().max() > 1e-6


def test_the_first_step_is_the_optimizers_times_the_first_scale():
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    Mechanic(SGD([weight], lr=1.0), first=0.06).step(lambda: torch.sum(3 * weight))
    # nothing is summed yet, so nothing was won: each of six scales is 0.06 / 6 of ε / ε
    assert weight.item() == pytest.approx(2.0 - 0.06 * 3.0)
