"""StepGuard: untouched inside, kept inside against a dense Jacobian, held uphill, taken back where not finite."""

from __future__ import annotations

import itertools
import math
import tempfile

import keras
import numpy as np
import pytest
import torch
from common import LOGITS, Places, array, assert_same, classes, classifier, half_mse, refused, snapshot, teacher

from safestep.errors import AttachError
from safestep.formulas.quadratic_ratio import softmax_bend
from safestep.formulas.softmax_ratio import spread
from safestep.integrations.keras import GuardedModel, StepGuard

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam


def untouched(radius, policy, make):
    x, y = classes()
    found = []
    for kind in (keras.Model, GuardedModel):
        optimizer, model = make(), classifier(kind)
        options = {"radius": radius, "policy": policy, "target": 50.0} if kind is GuardedModel else {}
        model.compile(optimizer, LOGITS, **options)
        keras.utils.set_random_seed(2)
        history = model.fit(x, y, 16, 3, verbose=0).history
        draw = keras.random.uniform((4,))  # the generators are where they were
        found.append(([np.array(history["loss"])], snapshot(model, optimizer), [array(keras.Variable(draw))]))
    assert min(history["step_ratio"]) > 0.0
    if policy == "cap":
        assert history["scale"] == [1.0, 1.0, 1.0]
    for one, other in zip(*found, strict=True):
        assert_same(one, other)


def check_untouched_inside_softmax():
    untouched("softmax", "cap", lambda: Adam(1e-3))


def check_untouched_inside_curvature():
    untouched("curvature", "cap", lambda: SGD(0.01))


def check_untouched_with_attention_and_recurrence():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 20, size=(32, 6)), rng.integers(0, 3, size=32)
    found = []
    for kind in (keras.Model, GuardedModel):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((6,), dtype="int32")
        tokens = keras.layers.Embedding(20, 8)(inputs)
        mixed = keras.layers.LayerNormalization()(tokens + keras.layers.MultiHeadAttention(2, 4)(tokens, tokens))
        optimizer, model = Adam(1e-3), kind(inputs, keras.layers.Dense(3)(keras.layers.LSTM(5)(mixed)))
        model.compile(optimizer, LOGITS)
        history = model.fit(x, y, 8, 2, shuffle=False, verbose=0).history
        found.append(snapshot(model, optimizer))
    assert 0.0 < max(history["step_ratio"]) < 1.0
    assert_same(*found)


def check_untouched_when_watched():
    untouched("softmax", "watch", lambda: keras.optimizers.RMSprop(0.1))


def network(flat, x):
    """The classifier without noise as a plain function in float64, in the order of Keras' variables."""
    a, b, c, d = (
        part.reshape(shape)
        for part, shape in zip(flat.split([48, 8, 24, 3]), [(6, 8), (8,), (8, 3), (3,)], strict=True)
    )
    return torch.tanh(x @ a + b) @ c + d


def exact(begin, end, x, y):
    """Return both ratios of a step by a dense Jacobian in float64."""
    theta, step = (torch.tensor(np.concatenate([v.ravel() for v in place]).astype(float)) for place in (begin, end))
    step, x = step - theta, torch.tensor(x.astype(float))
    jacobian = torch.func.jacrev(lambda t: network(t, x))(theta)
    z, a = network(theta, x), jacobian @ step
    slope = ((torch.softmax(z, -1) - torch.nn.functional.one_hot(torch.tensor(y), 3)) * a).sum() / len(y)
    bend = softmax_bend(z, a).mean()
    return {"softmax": float(spread(a).max()) / math.pi, "curvature": float(bend / (-2 * slope))}


def kept(radius, policy, target, rate, *, epochs=8):
    x, y = classes()
    model, places = classifier(GuardedModel, noisy=False), Places()
    model.compile(SGD(rate), LOGITS, radius=radius, policy=policy, target=target)
    history = model.fit(x, y, 64, epochs, shuffle=False, verbose=0, callbacks=[places]).history
    scales, proposed = np.array(history["scale"]), np.array(history["step_ratio"])
    applied = np.array([exact(*ends, x, y)[radius] for ends in itertools.pairwise(places.places)])
    np.testing.assert_allclose(applied, scales * proposed, rtol=1e-3)
    return applied, scales


def check_kept_inside_softmax():
    applied, scales = kept("softmax", "cap", 0.5, 30.0)
    assert (scales < 1.0).sum() >= 4
    assert applied.max() <= 0.5 * (1 + 1e-3)


def check_kept_inside_curvature():
    applied, scales = kept("curvature", "cap", 0.75, 30.0)
    assert (scales < 1.0).sum() >= 4
    assert applied.max() <= 0.75 * (1 + 1e-3)


def check_pinned():
    applied, scales = kept("softmax", "pin", 0.2, 0.1)
    assert (scales > 1.0).any()
    np.testing.assert_allclose(applied, 0.2, rtol=1e-3)


def check_sigmoid_head():
    x, y = classes(many=2)
    model = classifier(GuardedModel, noisy=False, outputs=1)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(SGD(50.0), loss, head="sigmoid", target=0.3)
    begin = [keras.ops.convert_to_tensor(v) for v in snapshot(model)]
    history = model.fit(x, y[:, None], 64, 1, verbose=0).history
    end = [keras.ops.convert_to_tensor(v) for v in snapshot(model)]
    # a short piece of the step: the change of the logits is J p to first order
    piece = [b + 1e-2 * (e - b) for b, e in zip(begin, end, strict=True)]
    change = model.stateless_call(piece, [], x)[0] - model.stateless_call(begin, [], x)[0]
    assert history["scale"][0] < 1.0
    assert abs(float(keras.ops.max(keras.ops.abs(change))) / 1e-2 / math.pi - 0.3) < 0.01


def check_masks_and_statistics_are_those_of_the_training_forward():
    """r against a difference of two forwards from the state before the step: seeded dropout, normalisation."""
    x, y = classes()
    keras.utils.set_random_seed(4)
    inputs = keras.Input((6,))
    hidden = keras.layers.Dropout(0.4, seed=3)(keras.layers.Dense(16, "tanh")(inputs))
    model = GuardedModel(inputs, keras.layers.Dense(3)(keras.layers.BatchNormalization()(hidden)))
    model.compile(SGD(0.5), LOGITS, policy="watch")
    model.fit(x, y, 64, 2, verbose=0)
    begin, fixed = ([array(v) for v in part] for part in (model.trainable_variables, model.non_trainable_variables))
    found = model.fit(x, y, 64, 1, shuffle=False, verbose=0).history["step_ratio"][0]
    step = [array(v) - b for v, b in zip(model.trainable_variables, begin, strict=True)]

    def logits(t):
        tensors = [keras.ops.convert_to_tensor(b + t * p) for b, p in zip(begin, step, strict=True)]
        state = [keras.ops.convert_to_tensor(v) for v in fixed]
        return keras.ops.convert_to_numpy(model.stateless_call(tensors, state, x, training=True)[0]).astype(float)

    change = (logits(0.05) - logits(-0.05)) / 0.1
    assert abs(found / ((change.max(-1) - change.min(-1)).max() / math.pi) - 1) < 0.01


def check_curvature_of_a_linear_model_is_eta_lambda_over_2():
    """Along an eigenvector, for half_mse, mse and weighted mse: r = eta lambda / 2."""
    x = np.array([[2.0, 0.0], [0.0, 1.0]], "float32")
    y = np.array([[4.0], [0.0]], "float32")  # the gradient lies along the first axis
    for loss, weight, eigenvalue in (
        (half_mse, None, 2.0), ("mse", None, 4.0), ("mse", np.array([3.0, 1.0], "float32"), 12.0),
    ):  # fmt: skip
        inputs = keras.Input((2,))
        model = GuardedModel(inputs, keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs))
        model.compile(SGD(0.1), loss, radius="curvature", policy="watch")
        found = model.fit(x, y, 2, 1, verbose=0, sample_weight=weight).history["step_ratio"][0]
        assert abs(found - 0.1 * eigenvalue / 2) < 1e-5, (loss, found)


def check_the_drift_goes_down_without_a_jump():
    """The curvature radius at chi / 2 has no unprotected step: the loss never rises."""
    x, y = teacher()
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    model = GuardedModel(inputs, keras.layers.Dense(2, use_bias=False)(inputs))
    model.compile(SGD(0.5), half_mse, radius="curvature", target=0.75)
    losses = model.fit(4 * x, y, 1000, 40, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < 1e-4
    assert all(later <= earlier for earlier, later in itertools.pairwise(losses) if earlier > 1e-9)


def check_uphill_is_held():
    """Momentum gathered towards one target points away from the opposite one for a while."""
    x, y = np.ones((8, 1), "float32"), np.ones((8, 1), "float32")
    inputs = keras.Input((1,))
    model = GuardedModel(inputs, keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs))
    optimizer, places = SGD(1e-3, momentum=0.9), Places()
    model.compile(optimizer, "mse", radius="curvature", target=10.0)
    model.fit(x, y, 8, 10, verbose=0)
    velocity = snapshot(optimizer)
    history = model.fit(x, -y, 8, 20, verbose=0, callbacks=[places]).history
    held = int(sum(history["held"]))
    assert 1 < held < 20
    assert history["held"] == [1.0] * held + [0.0] * (20 - held)  # and goes on once the momentum has turned
    assert history["scale"] == [0.0] * held + [1.0] * (20 - held)
    assert_same(places.places[0], places.places[held])
    assert not np.array_equal(places.places[held], places.places[held + 1])
    assert any(not np.array_equal(a, b) for a, b in zip(velocity, snapshot(optimizer), strict=True))


class NoDerivative(keras.layers.Layer):
    """A layer through which torch has no forward derivative, and jax neither."""

    def call(self, inputs):
        if keras.backend.backend() == "jax":
            import jax

            backwards = jax.custom_vjp(lambda x: 2 * x)
            backwards.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))
            return backwards(inputs)

        class Backwards(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return 2 * x

            @staticmethod
            def backward(ctx, g):
                return 2 * g

        return Backwards.apply(inputs)


def check_a_step_that_cannot_be_measured_is_an_error():
    x, y = classes()
    inputs = keras.Input((6,))
    model, optimizer = GuardedModel(inputs, NoDerivative()(keras.layers.Dense(3)(inputs))), Adam(0.1)
    model.compile(optimizer, LOGITS)
    before = snapshot(model)
    with pytest.raises((RuntimeError, TypeError), match=r"forward|jvp"):
        model.fit(x, y, verbose=0)
    if keras.backend.backend() == "torch":  # on jax nothing ran, and Keras drops the weights of a fit that raised
        assert_same(before, snapshot(model))


def check_a_step_that_is_not_finite_is_taken_back_whole():
    for radius in ("softmax", "curvature"):
        x, y = classes()
        model, optimizer = classifier(GuardedModel), Adam(0.01)
        model.compile(optimizer, LOGITS, radius=radius)
        model.fit(x, y, 64, 1, verbose=0)
        before = snapshot(model, optimizer)
        assert model.fit(x * np.nan, y, 64, 1, verbose=0).history["nonfinite"] == [1.0]
        assert_same(before, snapshot(model, optimizer))
        assert model.fit(x, y, 64, 1, verbose=0).history["nonfinite"] == [0.0]


def check_evaluate_has_no_step():
    x, y = classes()
    model = classifier(GuardedModel, noisy=False)
    model.compile(SGD(0.1), LOGITS, metrics=["accuracy"])
    history = model.fit(x, y, verbose=0, validation_data=(x, y)).history
    assert set(history) == {
        "accuracy", "loss", "val_accuracy", "val_loss", "step_ratio", "scale", "held", "nonfinite",
    }  # fmt: skip
    assert set(model.evaluate(x, y, verbose=0, return_dict=True)) == {"loss", "accuracy"}


def check_saved_and_loaded_continues_equally():
    x, y = classes()
    model = classifier(GuardedModel, noisy=False)
    model.compile(Adam(1.0), LOGITS, radius="curvature", policy="cap", target=0.4)
    model.fit(x, y, 64, 2, shuffle=False, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.keras")
        loaded = keras.models.load_model(f"{folder}/model.keras")
    assert isinstance(loaded, GuardedModel)
    assert loaded.guard.settings() == {"radius": "curvature", "policy": "cap", "target": 0.4, "head": "softmax"}
    logs = [m.fit(x, y, 64, 3, shuffle=False, verbose=0).history for m in (model, loaded)]
    assert logs[0] == logs[1]
    assert min(logs[0]["scale"]) < 1.0
    assert_same(snapshot(model, model.optimizer), snapshot(loaded, loaded.optimizer))


class Own(StepGuard, keras.Model):
    """A model with a call of its own, without a training argument."""

    def __init__(self, outputs=1):
        super().__init__()
        self.dense = [keras.layers.Dense(3) for _ in range(outputs)]

    def call(self, inputs):
        results = [dense(inputs) for dense in self.dense]
        return results if len(results) > 1 else results[0]


class Stack(StepGuard, keras.Sequential):
    """A sequential one."""


def check_models_of_every_kind():
    x, y = classes()
    for model in (Own(), Stack([keras.Input((6,)), keras.layers.Dense(3)])):
        model.compile(SGD(100.0), LOGITS, target=0.5)
        history = model.fit(x, y, verbose=0).history
        assert history["step_ratio"][0] > 0.5 > 0.5 * history["scale"][0]


def check_what_cannot_be_guarded_is_refused():
    probabilities = keras.losses.SparseCategoricalCrossentropy()
    for optimizer, loss, options, words in (
        (SGD(0.1, use_ema=True), LOGITS, {}, "use_ema=True"),
        (SGD(0.1, gradient_accumulation_steps=2), LOGITS, {}, "accumulates"),
        (SGD(0.1), probabilities, {}, "from_logits=True"),
        (SGD(0.1), "binary_crossentropy", {}, "from_logits=True"),
        (SGD(0.1), LOGITS, {"radius": "hessian"}, "radius='hessian'"),
        (SGD(0.1), LOGITS, {"policy": "hold"}, "policy='hold'"),
        (SGD(0.1), LOGITS, {"target": 0.0}, "target=0.0"),
        (SGD(0.1), LOGITS, {"target": math.inf, "policy": "pin"}, "finite one"),
    ):
        with refused(AttachError, words):
            classifier(GuardedModel, noisy=False).compile(optimizer, loss, **options)
    x, y = classes()
    model = Own(2)
    model.compile(SGD(0.1), [LOGITS, LOGITS])
    with refused(AttachError, "one output"):
        model.fit(x, [y, y], verbose=0)
    model = classifier(GuardedModel, noisy=False, outputs=1)
    model.compile(SGD(0.1), keras.losses.BinaryCrossentropy(from_logits=True))
    with refused(AttachError, "head='sigmoid'"):
        model.fit(x, y[:, None] > 0, verbose=0)
