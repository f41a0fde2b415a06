"""How the steps of a Keras model are guarded: from how its outputs move to r, s, the applied step and the metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from safestep.errors import AttachError
from safestep.integrations.keras._keras import Array, keras, ops
from safestep.integrations.keras.ratios import Head, Policy, curvature_ratio, scale_of, softmax_ratio
from safestep.integrations.keras.tensor_norms import all_finite

RadiusName = Literal["softmax", "curvature"]


@dataclass(frozen=True)
class Measured:
    """A measured step; all three without dimensions.

    Attributes:
        ratio: r of the proposal.
        scale: s that the policy stands for.
        finite: whether the step and its r are; a held step has r = inf and counts as finite.
        acts: whether the scale is applied.
    """

    ratio: Array
    scale: Array
    finite: Array
    acts: bool

    def apply(self, start: Sequence[Array], moved: Sequence[Array]) -> list[Array]:
        """Return ``start + s p``: bit for bit ``moved`` at s = 1, and ``start`` for a step that is not finite."""
        return self.undo(start, [self._between(*ends) for ends in zip(start, moved, strict=True)])

    def _between(self, start: Array, end: Array) -> Array:
        scaled = ops.where(self.scale > 0, start + ops.cast(self.scale, start.dtype) * (end - start), start)
        return ops.where(self.scale == 1, end, scaled) if self.acts else end

    def undo(self, before: Sequence[Array], after: Sequence[Array]) -> list[Array]:
        """Return the state of a finished step, or that before it if the step was not finite."""
        if not self.acts:
            return list(after)
        return [ops.where(self.finite, end, start) for start, end in zip(before, after, strict=True)]


class Guarding:
    """The options of a guarded model, checked, and the metrics that tell of its steps.

    Args:
        radius: ``"softmax"`` or ``"curvature"``.
        policy: ``"cap"``, ``"pin"`` or ``"watch"``.
        target: the largest r to let through, positive; the r of every step under ``"pin"``.
        head: for the softmax radius, ``"softmax"`` over the last dimension or one ``"sigmoid"`` per logit.

    Raises:
        AttachError: at construction, for another value.
    """

    def __init__(self, radius: RadiusName, policy: Policy, target: float, head: Head) -> None:
        self.radius, self.policy, self.target, self.head = radius, policy, target, head
        for name, value, kind in (("radius", radius, RadiusName), ("policy", policy, Policy), ("head", head, Head)):
            if value not in get_args(kind):
                raise AttachError(f"{name}={value!r}: expected one of {', '.join(map(repr, get_args(kind)))}")
        if not target > 0.0 or (policy == "pin" and target == math.inf):
            raise AttachError(f"target={target!r}: expected a positive number, and a finite one for policy='pin'")
        self._largest = LargestFinite(name="step_ratio")
        self._scale = keras.metrics.Mean(name="would_scale" if policy == "watch" else "scale")
        self._held, self._nonfinite = keras.metrics.Mean(name="held"), keras.metrics.Mean(name="nonfinite")
        self.metrics = {m.name: m for m in (self._largest, self._scale, self._held, self._nonfinite)}

    def settings(self) -> dict[str, Any]:
        """Return the options of `compile`."""
        return {"radius": self.radius, "policy": self.policy, "target": self.target, "head": self.head}

    def measure(
        self, value: Array, tangent: Array, derivatives: Callable[[], tuple[Array, Array]], moved: Sequence[Array]
    ) -> Measured:
        """Return how far a step goes and what the policy makes of it.

        Args:
            value: ``z``, the outputs of the training forward, one tensor.
            tangent: ``J p``, of the same shape.
            derivatives: returns ``g.p`` and ``p.Gp``, of the model's own loss at ``z + t J p``, at t = 0.
            moved: the trainable variables after the step.

        Raises:
            AttachError: for a model with several outputs.
        """
        if not hasattr(value, "shape"):
            raise AttachError(
                f"the model returns a {type(value).__name__}: a guarded model has one output, a tensor of logits "
                "(or of predictions)"
            )
        if self.radius == "softmax":
            ratio = softmax_ratio(ops.cast(tangent, "float32"), self.head)
            held = ops.zeros_like(ratio, dtype="bool")
        else:
            slope, bend = derivatives()
            ratio = curvature_ratio(bend, slope)
            held = ops.logical_and(ops.isfinite(bend), ops.logical_and(ops.isinf(ratio), slope >= 0))
        finite = ops.logical_and(all_finite(moved), ops.logical_or(ops.isfinite(ratio), held))
        return Measured(ratio, scale_of(ratio, self.policy, self.target), finite, acts=self.policy != "watch")

    def log(self, measured: Measured) -> dict[str, Any]:
        """Update the metrics, and return what they say."""
        self._largest.update_state(measured.ratio)
        self._scale.update_state(ops.where(measured.finite, measured.scale, 0.0))
        self._held.update_state(ops.logical_and(measured.finite, ops.logical_not(ops.isfinite(measured.ratio))))
        self._nonfinite.update_state(ops.logical_not(measured.finite))
        return {name: metric.result() for name, metric in self.metrics.items()}


class LargestFinite(keras.metrics.Metric):
    """The largest finite value since the metric was reset; 0 if there was none."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name=name, **options)
        self.largest = self.add_variable((), "zeros", name="largest")

    def update_state(self, value: Array, sample_weight: Array = None) -> None:
        """Take in a value that is at least 0; weights have no meaning here."""
        value = ops.cast(value, self.largest.dtype)
        self.largest.assign(ops.maximum(self.largest, ops.where(ops.isfinite(value), value, ops.zeros_like(value))))

    def result(self) -> Array:
        """Return the largest."""
        return ops.convert_to_tensor(self.largest)
