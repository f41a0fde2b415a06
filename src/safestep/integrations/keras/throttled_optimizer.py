"""Throttled: any Keras optimizer, its whole update scaled so that it stays inside the stability limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal, Self

from safestep.errors import AttachError
from safestep.integrations.keras._keras import Array, keras, ops
from safestep.integrations.keras.fusion_barrier import apart, value_of
from safestep.integrations.keras.secant_law import curvature_and_mean, margin_of, next_scale
from safestep.integrations.keras.tensor_norms import all_finite, distance, norm, wide_dtype
from safestep.policy.throttle import Throttle
from safestep.radius.secant import SecantCurvature

_STILL = {"float32": 8 * 2.0**-23, "float64": 8 * 2.0**-52}
"""A few units in the last place, relative: a move within the rounding of the parameters tells nothing."""


@keras.saving.register_keras_serializable(package="safestep")
class Throttled(keras.optimizers.Optimizer):
    r"""Wraps a Keras optimizer and scales its update by alpha, the same for all variables.

    Equation:
        ``theta <- theta + alpha p`` with the wrapped optimizer's own update ``p``. With
        ``C_t = ||g_t - g_{t-1}|| / ||theta_t - theta_{t-1}||`` and its running mean
        ``S_t = (1 - beta) S_{t-1} + beta C_t``, alpha follows from ``m = max(C_t, S_t) ||p|| / ||g||`` (``eta C`` for
        plain SGD) by the law of `safestep.Throttle`. At order 0 the applied margin ``alpha m`` is at most ``chi`` in
        every step. In the first one, where there is no difference of gradients yet, ``m`` counts as 0: it is not
        protected.

    Args:
        optimizer: any Keras optimizer, or its name.
        chi: the margin to aim at, in (0, 2); 2 is the stability limit.
        order: 0, 1 or 2.
        beta: share of the newest curvature in its running mean, in [0, 1].
        gain: of orders 1 and 2, positive.
        damping: of order 2, in [0, 1).
        start: first alpha of orders 1 and 2, in [0, high].
        low: smallest alpha, at least 0.
        high: largest alpha.
        name: of the optimizer.

    Attributes:
        inner: the wrapped optimizer, whose learning rate, schedule, clipping, weight decay, iterations and gradient
            accumulation work as ever.
        alpha: the scale of the last update, a variable; likewise:
        margin: of the last raw update.
        curvature: ``C`` at the last update, one over the unit of the learning rate.
        undone: how many updates were taken back because they, or their gradients, were not finite.

    Raises:
        AttachError: at construction, for an option out of its range or an optimizer that cannot be throttled.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> model.compile(optimizer=Throttled(keras.optimizers.SGD(0.5), chi=1.5), loss="mse")
        >>> _ = model.fit(ops.ones((8, 4)), ops.zeros((8, 2)), epochs=3, verbose=0)
        >>> 0.0 < float(model.optimizer.alpha) <= 1.0
        True

    Note:
        While alpha is 1 nothing is written: weights and optimizer variables are what the wrapped optimizer made them.
        An update that is not finite is taken back whole, the wrapped optimizer's variables included, and counted.

        The margin is that of plain SGD. Momentum carries on what alpha shortened only in the parameters: with
        momentum 0.9 this law does not protect. Use `StepGuard` with the curvature radius there.

    Reference:
        M. Blanco Valentin, ENABOL / kappa, experiment 000, see `safestep.formulas.throttle_laws`.
    """

    def __init__(
        self,
        optimizer: Any,
        chi: float = 1.5,
        order: Literal[0, 1, 2] = 0,
        beta: float = 0.05,
        gain: float = 0.1,
        damping: float = 0.8,
        start: float = 0.0,
        low: float = 0.0,
        high: float = 1.0,
        name: str | None = None,
    ) -> None:
        try:
            law = Throttle(chi=chi, order=order, gain=gain, damping=damping, start=start, low=low, high=high)
            secant = SecantCurvature(beta)
        except ValueError as error:
            raise AttachError(str(error)) from None
        inner = keras.optimizers.get(optimizer)
        _check(inner)
        super().__init__(learning_rate=0.0, name=name)
        self.law, self.secant, self.inner = law, secant, inner

    def build(self, variables: Sequence[Any]) -> None:
        """Create the variables of the wrapped optimizer and of the throttle."""
        if self.built:
            return
        if any(self._overwrite_variable_with_gradient(variable) for variable in variables):
            raise AttachError(
                "a variable is overwritten with its gradient (float8 training), which is no step that could be scaled: "
                "train in float32, bfloat16 or float16"
            )
        self._wide = wide_dtype(variable.dtype for variable in variables)
        self.alpha = self._number("alpha", self.law.start if self.law.order else self.law.high)
        self.velocity, self.margin = self._number("velocity"), self._number("margin")
        self.curvature, self.mean = self._number("curvature"), self._number("mean_curvature")
        self.undone = self.add_variable((), dtype="int32", name="undone")
        self._gradients = self.add_optimizer_variables(variables, "last_gradient")
        self._places = self.add_optimizer_variables(variables, "last_place")
        self.inner.build(variables)
        super().build(variables)

    def _number(self, name: str, value: float = 0.0) -> Any:
        return self.add_variable((), keras.initializers.Constant(value), dtype=self._wide, name=name)

    def apply(self, grads: Sequence[Array], trainable_variables: Sequence[Any] | None = None) -> None:
        """Let the wrapped optimizer update the variables, then scale what it did. See `keras.optimizers.Optimizer`."""
        if not self.built:
            if trainable_variables is None:
                raise AttachError("apply(gradients) before build(variables): pass the variables, or build first")
            with keras.name_scope(self.name):
                self.build(list(trainable_variables))
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        self._check_variables_are_known(variables)
        by_variable = {id(variable): gradient for variable, gradient in zip(variables, grads, strict=True)}
        gradients = self._effective([by_variable.get(id(variable)) for variable in self._trainable_variables])
        gradients = apart(gradients, self._iterations)
        steps, targets = self._steps_now(), [*self._trainable_variables, *self.inner.variables]
        before = [ops.copy(value_of(variable)) for variable in targets]  # copies: torch updates in place
        self.inner.apply(list(grads), variables)
        after = apart(targets, self._iterations)
        finite = all_finite([*gradients, *(value for value in after if keras.backend.is_float_dtype(value.dtype))])
        many = len(self._trainable_variables)
        after[:many] = self._throttle(gradients, before[:many], after[:many], ops.logical_and(finite, steps))
        for variable, former, value in zip(targets, before, after, strict=True):
            variable.assign(ops.where(finite, value, former))
        self.undone.assign_add(ops.cast(ops.logical_not(finite), "int32"))

    def _throttle(self, gradients: list[Array], start: list[Array], end: list[Array], moved: Array) -> list[Array]:
        """Return where the update from ``start`` to ``end`` is put, and remember it if it moved."""
        way = distance(start, self._places, self._wide)
        change = distance(gradients, self._gradients, self._wide)
        comparable = ops.logical_and(value_of(self._iterations) > 0, way > _STILL[self._wide] * norm(start, self._wide))
        curvature, mean = curvature_and_mean(
            value_of(self.curvature), value_of(self.mean), self.secant.beta, change, way, comparable
        )
        length = distance(end, start, self._wide)
        margin = margin_of(ops.maximum(curvature, mean), length, norm(gradients, self._wide))
        alpha, velocity = next_scale(self.law, value_of(self.alpha), value_of(self.velocity), margin)
        remembered = [self.alpha, self.velocity, self.margin, self.curvature, self.mean, *self._gradients]
        newest = [alpha, velocity, margin, curvature, mean, *gradients]
        for variable, value in zip([*remembered, *self._places], [*newest, *start], strict=True):
            variable.assign(ops.where(moved, ops.cast(value, variable.dtype), value_of(variable)))
        self._iterations.assign_add(ops.cast(moved, self._iterations.dtype))
        whole = ops.logical_or(ops.logical_not(moved), alpha == 1)
        return [
            ops.where(whole, stop, _between(variable, origin, stop, alpha))
            for variable, origin, stop in zip(self._trainable_variables, start, end, strict=True)
        ]

    def _steps_now(self) -> Array:
        """Return whether the coming step updates parameters, or only adds to the wrapped optimizer's accumulators."""
        steps = self.inner.gradient_accumulation_steps
        return (value_of(self.inner._iterations) + 1) % steps == 0 if steps else ops.convert_to_tensor(True)

    def _effective(self, gradients: list[Array | None]) -> list[Array]:
        """Return the gradients that the coming update is made of, before any clipping; zero where there is none."""
        steps, scale = self.inner.gradient_accumulation_steps, self.inner.loss_scale_factor
        full = [
            ops.zeros_like(value_of(variable)) if gradient is None else value_of(gradient)
            for variable, gradient in zip(self._trainable_variables, gradients, strict=True)
        ]
        if scale is not None:
            full = [gradient / scale for gradient in full]
        if steps:
            sums = self.inner._accumulated_gradients
            full = [(gradient + value_of(total)) / steps for gradient, total in zip(full, sums, strict=True)]
        return full

    @property
    def variables(self) -> list[Any]:
        """Those of the throttle and of the wrapped optimizer: all that a saved run needs to go on equally."""
        return [*self._variables, *self.inner.variables]

    @property
    def iterations(self) -> Any:
        """The wrapped optimizer's count."""
        return self.inner.iterations

    @property
    def learning_rate(self) -> Any:
        """The wrapped optimizer's, to read and to set."""
        return self.inner.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner.learning_rate = learning_rate

    @property
    def loss_scale_factor(self) -> float | None:
        """The wrapped optimizer's; Keras sets it to None where a `LossScaleOptimizer` goes around this one."""
        return self.inner.loss_scale_factor if hasattr(self, "inner") else None

    @loss_scale_factor.setter
    def loss_scale_factor(self, factor: float | None) -> None:
        if hasattr(self, "inner"):
            self.inner.loss_scale_factor = factor

    def scale_loss(self, loss: Array) -> Array:
        """Scale the loss as the wrapped optimizer does."""
        return self.inner.scale_loss(loss)

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Exclude variables from the wrapped optimizer's weight decay."""
        self.inner.exclude_from_weight_decay(var_list, var_names)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs to make an equal optimizer."""
        options = {**asdict(self.law), "beta": self.secant.beta, "name": self.name}
        del options["quantum"]
        return {"optimizer": keras.saving.serialize_keras_object(self.inner), **options}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        """Make an optimizer from what `get_config` returned."""
        inner = keras.saving.deserialize_keras_object(config["optimizer"], custom_objects=custom_objects)
        return cls(**{**config, "optimizer": inner})


def find_throttled(optimizer: Any) -> Throttled | None:
    """Return the throttled optimizer in a model's optimizer, which Keras may have wrapped for mixed precision."""
    while optimizer is not None and not isinstance(optimizer, Throttled):
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return optimizer


def refuse_averages(optimizer: Any) -> None:
    """Raise AttachError for an optimizer that averages its weights."""
    if optimizer.use_ema:
        raise AttachError(
            f"{optimizer.name} keeps an average of its weights (use_ema=True), which would be one of the updates "
            "before they are scaled: switch it off, and average the weights in a callback"
        )


def _check(inner: Any) -> None:
    if isinstance(inner, keras.optimizers.LossScaleOptimizer):
        raise AttachError(
            "Throttled(LossScaleOptimizer(...)) would compare gradients of different loss scales: put them the other "
            "way round, LossScaleOptimizer(Throttled(...)); compile() does so by itself under mixed_float16"
        )
    if find_throttled(inner) is not None:
        raise AttachError("Throttled(Throttled(...)): one throttle is enough, pass the optimizer itself")
    refuse_averages(inner)


def _between(variable: Any, origin: Array, end: Array, alpha: Array) -> Array:
    """Return ``origin + alpha (end - origin)``, computed no narrower than alpha, under the variable's constraint."""
    begin = ops.cast(origin, alpha.dtype)
    scaled = ops.cast(begin + alpha * (ops.cast(end, alpha.dtype) - begin), variable.dtype)
    return scaled if variable.constraint is None else variable.constraint(scaled)
