"""The same small network in jax and in torch, its batches, and plain formulas to hold the guards against."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from jax.flatten_util import ravel_pytree

SIZES = (5, 7, 4)


def weights(seed=0, sizes=SIZES, dtype=np.float64):
    """Return the layers of a perceptron, each (outputs, inputs) with a bias."""
    rng = np.random.default_rng(seed)
    return [
        {"w": rng.normal(size=(to, of)).astype(dtype) / np.sqrt(of), "b": rng.normal(size=to).astype(dtype) / 4}
        for of, to in itertools.pairwise(sizes)
    ]


def on_device(tree):
    return jax.tree.map(jnp.asarray, tree)


def network(layers, x):
    for layer in layers[:-1]:
        x = jnp.tanh(x @ layer["w"].T + layer["b"])
    return x @ layers[-1]["w"].T + layers[-1]["b"]


def in_torch(layers):
    modules: list[torch.nn.Module] = []
    for layer in layers:
        linear = torch.nn.Linear(*layer["w"].shape[::-1], dtype=torch.float64)
        linear.weight.data, linear.bias.data = torch.tensor(layer["w"]), torch.tensor(layer["b"])
        modules += [linear, torch.nn.Tanh()]
    return torch.nn.Sequential(*modules[:-1])


def batch(seed, rows=12, sizes=SIZES):
    """Return inputs and the number of a class for each, both of numpy."""
    rng = np.random.default_rng(100 + seed)
    return rng.normal(size=(rows, sizes[0])), rng.integers(0, sizes[-1], size=rows)


def cross_entropy(logits, labels):
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


@functools.partial(jax.jit, static_argnames="loss")
def gradient(params, x, y, loss=cross_entropy):
    return jax.grad(lambda q: loss(network(q, x), y).mean())(params)


def downhill(params, x, y):
    return jax.tree.map(lambda g: -g, gradient(params, x, y))


def random_like(params, seed=0, size=1.0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda q: jnp.asarray(size * rng.normal(size=q.shape), q.dtype), params)


@jax.jit
def dense(params, step, x):
    """Return logits and J p by a dense Jacobian."""
    flat, back = ravel_pytree(params)
    jacobian = jax.jacrev(lambda theta: network(back(theta), x))(flat)
    return network(params, x), jacobian @ ravel_pytree(step)[0]
