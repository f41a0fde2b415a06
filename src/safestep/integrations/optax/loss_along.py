"""Slope and bend of a loss along a step: g.p and p.Gp, sample by sample, from the logits and how they move.

The bends are those of `safestep.formulas.quadratic_ratio`. Weights, reduction and scale of a loss are those of its
mean over samples: a constant factor is in g.p and p.Gp alike, and not in the curvature radius.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from safestep.errors import LossMismatchError, MeasurementError, OneLogitError
from safestep.integrations.optax._jax import jax, jnp
from safestep.integrations.optax.moved_logits import MovedLogits
from safestep.radius.losses import LossName

Loss = LossName | Callable[[jax.Array, Any], jax.Array]
"""By name; or a function of optax such as `optax.losses.kl_divergence`: from logits and labels to losses of samples."""


def slope_and_bend(loss: Loss, moved: MovedLogits) -> tuple[jax.Array, jax.Array]:
    """Return the first two derivatives of each sample's loss along ``z + t a`` at t = 0, shape ``(*samples,)``.

    Raises:
        MeasurementError: at trace time, for labels that are missing or of the wrong shape.
        LossMismatchError: for a softmax over one class, or a function that does not return losses of samples.
    """
    logits, tangent, labels = moved.logits, moved.tangent, moved.labels
    if labels is None:
        raise MeasurementError(
            "the curvature along a step needs the labels: tx.update(grads, state, params, inputs=x, labels=y); without "
            "labels use limit=spread()"
        )
    if not isinstance(loss, str):
        return _derivatives(lambda t: _by_samples(loss(logits + t * tangent, labels), logits))
    labels = jnp.asarray(labels)
    if loss == "cross_entropy":
        return _cross_entropy(logits, tangent, labels), softmax_bend(logits, tangent)
    if labels.shape != logits.shape:
        raise MeasurementError(
            f"labels of shape {labels.shape} for outputs of shape {logits.shape}: {loss!r} has one label an output"
        )
    if loss == "bce":
        return ((jax.nn.sigmoid(logits) - labels) * tangent).sum(-1), sigmoid_bend(logits, tangent)
    return ((logits - labels) * tangent).sum(-1), jnp.square(tangent).sum(-1)


def softmax_bend(logits: jax.Array, tangent: jax.Array) -> jax.Array:
    """Return ``Var_P(a)`` of each sample; centred first, since ``E[a^2] - E[a]^2`` cancels."""
    if logits.shape[-1] == 1:
        raise OneLogitError(
            "saw one output under a softmax: the probability of a single class is 1 whatever the step does. For a "
            "binary classifier with one logit use spread(head='sigmoid') and the loss 'bce'"
        )
    weights = jax.nn.softmax(logits)
    centred = tangent - (weights * tangent).sum(-1, keepdims=True)
    return (weights * jnp.square(centred)).sum(-1)


def sigmoid_bend(logits: jax.Array, tangent: jax.Array) -> jax.Array:
    """Return ``sum_k P_k (1 - P_k) a_k^2`` of each sample."""
    return (jax.nn.sigmoid(logits) * jax.nn.sigmoid(-logits) * jnp.square(tangent)).sum(-1)


def _cross_entropy(logits: jax.Array, tangent: jax.Array, labels: jax.Array) -> jax.Array:
    """Return ``sum_k (P_k - y_k) a_k``; nan for a label that is no class (-100, say): it has to be masked."""
    weights = jax.nn.softmax(logits)
    mean = (weights * tangent).sum(-1)
    if labels.shape == logits.shape:
        return (labels * (mean[..., None] - tangent)).sum(-1)
    if labels.shape == logits.shape[:-1] and jnp.issubdtype(labels.dtype, jnp.integer):
        known = (labels >= 0) & (labels < logits.shape[-1])
        at_label = jnp.take_along_axis(tangent, jnp.where(known, labels, 0)[..., None], -1)[..., 0]
        return jnp.where(known, mean - at_label, jnp.nan)
    raise MeasurementError(
        f"labels of shape {labels.shape} and type {labels.dtype} for logits of shape {logits.shape}: expected whole "
        f"numbers of shape {logits.shape[:-1]}, or probabilities of shape {logits.shape}"
    )


def _derivatives(along: Callable[[jax.Array], jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Return the first two derivatives at 0 of a function of one number."""
    zero, one = jnp.zeros(()), jnp.ones(())
    return jax.jvp(lambda t: jax.jvp(along, (t,), (one,))[1], (zero,), (one,))


def _by_samples(losses: jax.Array, logits: jax.Array) -> jax.Array:
    """Return losses of samples, where a function returns those of outputs."""
    samples = logits.shape[:-1]
    if losses.shape not in (samples, logits.shape):
        raise LossMismatchError(
            f"the loss returned the shape {losses.shape} for logits of shape {logits.shape}: expected {samples}, one "
            "loss a sample, not yet averaged"
        )
    return losses.sum(-1) if losses.shape == logits.shape else losses
