"""Keras, or the error that names the extra which brings it."""

from __future__ import annotations

from typing import Any

from safestep._torch.extras import need

keras = need("keras", "keras")
ops = keras.ops

Array = Any
"""A tensor of the running backend, or a Keras variable: numpy, jax, torch and Keras itself have no type in common."""
