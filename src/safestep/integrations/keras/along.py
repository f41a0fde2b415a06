"""What a guarded Keras model knows of one step: how its outputs move, how far that is, what is made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from safestep.errors import AttachError
from safestep.integrations.keras._extra import Array, keras, ops
from safestep.integrations.keras.norms import all_finite
from safestep.integrations.keras.ratios import Head, Policy, curvature_ratio, scale_of, softmax_ratio

RadiusName = Literal["softmax", "curvature"]


@dataclass(frozen=True)
class Along:
    """The outputs of the training forward and how they change along the step.

    Attributes:
        value: ``z``, one tensor.
        tangent: ``J p``, of the same shape.
        model_of_loss: returns ``g.p`` and ``p.Gp``, the derivatives at t = 0 of the model's own loss at ``z + t J p``.
    """

    value: Array
    tangent: Array
    model_of_loss: Callable[[], tuple[Array, Array]]


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
        if not self.acts:
            return list(moved)
        kept = []
        for begin, end in zip(start, moved, strict=True):
            scale = ops.cast(self.scale, begin.dtype)
            scaled = ops.where(self.scale > 0, begin + scale * (end - begin), begin)
            kept.append(ops.where(self.finite, ops.where(self.scale == 1, end, scaled), begin))
        return kept

    def undo(self, before: Sequence[Array], after: Sequence[Array]) -> list[Array]:
        """Return the state of a finished step, or that before it if the step was not finite."""
        if not self.acts:
            return list(after)
        return [ops.where(self.finite, end, begin) for begin, end in zip(before, after, strict=True)]


@dataclass(frozen=True)
class Guarding:
    """How the steps of a Keras model are guarded: settings, and the metrics that tell of them.

    Attributes:
        radius: ``"softmax"`` or ``"curvature"``.
        policy: ``"cap"``, ``"pin"`` or ``"watch"``.
        target: the largest r to let through, positive; the r of every step under ``"pin"``.
        head: for the softmax radius, ``"softmax"`` over the last dimension or one ``"sigmoid"`` per logit.

    Raises:
        AttachError: at construction, for another value.
    """

    radius: RadiusName = "softmax"
    policy: Policy = "cap"
    target: float = 1.0
    head: Head = "softmax"
    metrics: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the options, and make the metrics."""
        for name, kind in {"radius": RadiusName, "policy": Policy, "head": Head}.items():
            if getattr(self, name) not in get_args(kind):
                raise AttachError(
                    f"{name}={getattr(self, name)!r}: expected one of {', '.join(map(repr, get_args(kind)))}"
                )
        if not self.target > 0.0 or (self.policy == "pin" and self.target == float("inf")):
            raise AttachError(f"target={self.target!r}: expected a positive number, and a finite one for policy='pin'")
        scale = "would_scale" if self.policy == "watch" else "scale"
        metrics = [
            Largest(name="step_ratio"),
            *(keras.metrics.Mean(name=name) for name in (scale, "held", "nonfinite")),
        ]
        object.__setattr__(self, "metrics", {metric.name: metric for metric in metrics})

    def settings(self) -> dict[str, Any]:
        """Return the options of `compile`."""
        return {"radius": self.radius, "policy": self.policy, "target": self.target, "head": self.head}

    def measure(self, along: Along, moved: Sequence[Array]) -> Measured:
        """Return how far a step goes and what the policy makes of it.

        Raises:
            AttachError: for a model with several outputs.
        """
        if not hasattr(along.value, "shape"):
            raise AttachError(
                f"the model returns a {type(along.value).__name__}: a guarded model has one output, a tensor of logits "
                "(or of predictions)"
            )
        if self.radius == "softmax":
            ratio = softmax_ratio(ops.cast(along.tangent, "float32"), self.head)
            held = ops.zeros_like(ratio, dtype="bool")
        else:
            slope, bend = along.model_of_loss()
            ratio = curvature_ratio(bend, slope)
            held = ops.logical_and(ops.isfinite(bend), ops.logical_and(ops.isinf(ratio), slope >= 0))
        finite = ops.logical_and(all_finite(moved), ops.logical_or(ops.isfinite(ratio), held))
        return Measured(ratio, scale_of(ratio, self.policy, self.target), finite, acts=self.policy != "watch")

    def log(self, measured: Measured) -> dict[str, Any]:
        """Update the metrics, and return what they say."""
        step_ratio, scale, held, nonfinite = self.metrics.values()
        step_ratio.update_state(measured.ratio)
        scale.update_state(ops.where(measured.finite, measured.scale, 0.0))
        held.update_state(ops.logical_and(measured.finite, ops.logical_not(ops.isfinite(measured.ratio))))
        nonfinite.update_state(ops.logical_not(measured.finite))
        return {name: metric.result() for name, metric in self.metrics.items()}


class Largest(keras.metrics.Metric):
    """The largest finite value since the metric was reset; 0 if there was none."""

    def __init__(self, name: str = "largest", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.largest = self.add_variable((), "zeros", name="largest")

    def update_state(self, value: Array, sample_weight: Array = None) -> None:
        """Take in a value that is at least 0; weights have no meaning here."""
        value = ops.cast(value, self.largest.dtype)
        self.largest.assign(ops.maximum(self.largest, ops.where(ops.isfinite(value), value, ops.zeros_like(value))))

    def result(self) -> Array:
        """Return the largest."""
        return ops.convert_to_tensor(self.largest)
