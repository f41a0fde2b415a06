"""Data, models and comparisons that the checks share."""

from __future__ import annotations

import contextlib
import re

import keras
import numpy as np
import pytest

A = np.array([[1.25, -0.75, 0.50, 0.20], [-0.40, 0.90, 1.10, -0.60]])
"""The teacher of the published experiment."""
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def teacher():
    """Return X and Y = X A' of the published experiment, float64."""
    x = np.random.default_rng(42).uniform(size=(1000, 4))
    return x, x @ A.T


def classes(samples=64, inputs=6, many=3, seed=0):
    """Return inputs and labels."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(samples, inputs)).astype("float32"), rng.integers(0, many, size=samples)


def classifier(kind=keras.Model, *, noisy=True, outputs=3, seed=1, activation="tanh"):
    """Return a functional classifier, with normalisation and dropout if noisy, of the same start for the same seed."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(8, activation, name="hidden")(inputs)
    if noisy:
        hidden = keras.layers.BatchNormalization()(hidden)
        hidden = keras.layers.Dropout(0.3)(hidden)
        hidden = keras.layers.Dropout(0.1, seed=7)(hidden)
    return kind(inputs, keras.layers.Dense(outputs, name="logits")(hidden))


def array(variable):
    """Return what a variable holds as a numpy array, a copy."""
    value = variable.value
    return np.array(value.detach() if hasattr(value, "detach") else value)


def snapshot(*holders):
    """Return copies of all variables of models (weights and seed states) and optimizers."""
    variables = []
    for holder in holders:
        variables += [*holder.trainable_variables, *holder.non_trainable_variables] if hasattr(holder, "layers") else (
            holder.variables
        )  # fmt: skip
    return [array(variable) for variable in variables]


def assert_same(one, other):
    """Assert that two snapshots agree bit for bit."""
    assert len(one) == len(other), (len(one), len(other))
    for i, (a, b) in enumerate(zip(one, other, strict=True)):
        assert a.dtype == b.dtype, (i, a.dtype, b.dtype)
        assert np.array_equal(a, b), f"{i} of {len(one)}: differs by up to {np.max(np.abs(a * 1.0 - b * 1.0))}"


@contextlib.contextmanager
def refused(kind, words):
    """Assert that an error of this kind is raised whose message has these words."""
    with pytest.raises(kind, match=re.escape(words)):
        yield


class Places(keras.callbacks.Callback):
    """Keeps the trainable weights from before the first epoch and after each."""

    def on_train_begin(self, logs=None):
        self.places = [[array(v) for v in self.model.trainable_variables]]

    def on_epoch_end(self, epoch, logs=None):
        self.places.append([array(v) for v in self.model.trainable_variables])


def half_mse(y, prediction):
    """Return half the squared error of each sample, added over its outputs."""
    return keras.ops.sum(keras.ops.square(prediction - y), -1) / 2
