"""StepGuard: Keras models whose training steps are kept inside the softmax or the curvature radius."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from safestep.errors import AttachError
from safestep.integrations.keras._keras import keras
from safestep.integrations.keras.guarding import Guarding, RadiusName
from safestep.integrations.keras.ratios import Head, Policy
from safestep.integrations.keras.throttled_optimizer import refuse_averages

_BACKENDS = {"jax": "on_jax", "torch": "on_torch"}


class StepGuard:
    r"""Mixin that measures every training step of a Keras model and keeps it inside a radius.

    Put it before the model class: ``class Mine(StepGuard, keras.Model)``; `GuardedModel` is that class for functional
    models. The options go to ``compile`` and are saved with it:

    * ``radius="softmax"``: ``r = max_i spread(J_i p) / pi`` over the samples of the batch, for a model that returns
      logits. ``head="sigmoid"`` where each logit is a probability of its own.
    * ``radius="curvature"``: ``r = p.Gp / (-2 g.p)`` of the model's own loss on this batch, whatever loss it was
      compiled with (sample weights included): its first two derivatives along ``z + t J p``. A step that goes uphill
      on its own batch is held: s = 0, while the optimizer's variables move on.
    * ``policy="cap"`` shortens a step to ``target`` (``s = min(1, target / r)``), ``"pin"`` sets every step to it,
      ``"watch"`` leaves it alone.

    Logged as metrics: ``step_ratio`` (the largest finite r of the epoch), ``scale`` (the mean s; ``would_scale`` under
    ``"watch"``), ``held`` and ``nonfinite`` (shares of the steps).

    Note:
        A step with s = 1 is not touched: weights, optimizer variables and generators are as without the guard. A step
        that is not finite, or whose r is not, is taken back whole: weights, optimizer variables, statistics of
        normalisation and seed generators.

        ``J p`` costs one more forward with derivatives, about three plain ones, at the state the training forward
        started from: the same dropout masks and batch statistics. A layer that draws from a generator of its own draws
        anew. Rows of sample weight 0 count in the softmax radius; penalties (regularizers, ``add_loss``) are not in the
        curvature radius.
    """

    guard: Guarding

    def compile(
        self,
        *arguments: Any,
        radius: RadiusName = "softmax",
        policy: Policy = "cap",
        target: float = 1.0,
        head: Head = "softmax",
        **options: Any,
    ) -> None:
        """Compile as ``keras.Model.compile`` does, with the options of the guard.

        Raises:
            AttachError: for options that do not fit together, or a backend other than jax and torch.
        """
        if keras.backend.backend() not in _BACKENDS:
            raise AttachError(
                f"StepGuard runs on the backends jax and torch, saw {keras.backend.backend()!r}: set KERAS_BACKEND "
                "before keras is imported"
            )
        self.guard = Guarding(radius, policy, target, head)
        super().compile(*arguments, **options)  # type: ignore[misc]
        _check(self)

    def train_step(self, *arguments: Any) -> Any:
        """Take a training step, measure it, and keep it inside. Called by ``fit``."""
        backend = importlib.import_module(f"{__package__}.{_BACKENDS[keras.backend.backend()]}")
        return backend.train_step(self, super().train_step, *arguments)  # type: ignore[misc]

    def test_step(self, *arguments: Any) -> Any:
        """Evaluate a batch; the metrics of the guard have nothing to say here."""
        result = super().test_step(*arguments)  # type: ignore[misc]
        logs, *state = result if isinstance(result, tuple) else (result,)
        logs = {name: value for name, value in logs.items() if name not in self.guard.metrics}
        return (logs, *state) if state else logs

    @property
    def metrics(self) -> list[Any]:
        """Those of the model, and those of the guard once it is compiled."""
        known = super().metrics  # type: ignore[misc]
        return [*known, *self.guard.metrics.values()] if hasattr(self, "guard") else known

    def get_compile_config(self) -> dict[str, Any]:
        """Return what ``compile_from_config`` needs, the options of the guard included."""
        config = super().get_compile_config()  # type: ignore[misc]
        return {**config, **self.guard.settings()} if config else config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile with what ``get_compile_config`` returned."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:  # type: ignore[attr-defined]
            self.optimizer.build(self.trainable_variables)  # type: ignore[attr-defined]


@keras.saving.register_keras_serializable(package="safestep")
class GuardedModel(StepGuard, keras.Model):
    """A functional Keras model with a `StepGuard`.

    Example:
        >>> inputs = keras.Input((4,))
        >>> model = GuardedModel(inputs, keras.layers.Dense(3)(inputs))
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> model.compile(keras.optimizers.SGD(100.0), loss, radius="softmax", target=1.0)
        >>> x, y = keras.ops.ones((8, 4)), keras.ops.arange(8) % 3
        >>> logs = model.fit(x, y, verbose=0).history
        >>> logs["step_ratio"][0] > 1.0 > logs["scale"][0]
        True
    """


def _check(model: Any) -> None:
    optimizer = model.optimizer
    while (inner := getattr(optimizer, "inner", getattr(optimizer, "inner_optimizer", None))) is not None:
        optimizer = inner
    refuse_averages(optimizer)
    if optimizer.gradient_accumulation_steps:
        raise AttachError(
            f"{optimizer.name} accumulates gradients: its step would be measured on the last of its batches alone. "
            "Use larger batches, or Throttled, which accumulates correctly"
        )
    losses: list[Any] = keras.tree.flatten(getattr(model, "loss", None) or [])
    if model.guard.radius == "softmax" and any(map(_takes_probabilities, losses)):
        raise AttachError(
            "the softmax radius speaks of logits, and this loss takes probabilities: leave the softmax out of the last "
            "layer and use the loss with from_logits=True"
        )


def _takes_probabilities(loss: Any) -> bool:
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    if isinstance(loss, functools.partial):
        return not loss.keywords.get("from_logits", False)
    if hasattr(loss, "from_logits"):
        return not loss.from_logits
    names = ("categorical_crossentropy", "sparse_categorical_crossentropy", "binary_crossentropy")
    return loss in [getattr(keras.losses, name) for name in names]
