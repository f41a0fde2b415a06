"""Limits: functions from how a step moves the logits to its step ratio r, dimensionless; 1 is the length they allow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, get_args

from safestep.formulas.softmax_ratio import Head
from safestep.integrations.optax._jax import jax, jnp
from safestep.integrations.optax.loss_along import Loss, sigmoid_bend, slope_and_bend, softmax_bend
from safestep.integrations.optax.moved_logits import MovedLogits
from safestep.radius.kl import KLRadius
from safestep.radius.losses import LossName
from safestep.radius.softmax import SoftmaxRadius
from safestep.radius.spreads import Over


class Limited(NamedTuple):
    """What a limit says of a step.

    Attributes:
        ratio: r, a 0-d array; inf where no length is short enough, nan where it cannot be told.
        uphill: whether that is because the loss rises from the start of the step.
        kl: predicted mean KL divergence between the predictions before and after the step, in nats; nan if not told.
        exact: whether r is what its definition says, not a quantile or of a forward in half precision.
    """

    ratio: jax.Array
    uphill: jax.Array
    kl: jax.Array
    exact: bool


Limit = Callable[[MovedLogits], Limited]
"""Homogeneous: r of ``c p`` is ``c r``, for c > 0."""
HEADS: dict[str, Head] = {"cross_entropy": "softmax", "bce": "sigmoid"}
"""How the losses of predictions read their logits."""


def spread(over: Over = "max", *, head: Head = "softmax") -> Limit:
    r"""Limit the spread of the change of the logits: the softmax radius, see `safestep.SoftmaxRadius`.

    Equation:
        ``r = max_i spread(a_i) / pi`` over the samples i that the mask lets count, ``a = J p``; or the mean, or a
        quantile in (0, 1], rounded up to an actual sample.

    Args:
        over: ``"max"``, ``"mean"`` or the quantile.
        head: ``"softmax"`` over the last dimension, or one ``"sigmoid"`` per logit.

    Raises:
        ValueError: for another value.
    """
    SoftmaxRadius(over=over, head=head)  # checks them

    def limit(moved: MovedLogits) -> Limited:
        a = moved.tangent
        bends = _bends(head)(moved.logits, a)
        spreads = jnp.abs(a).max(-1) if head == "sigmoid" else a.max(-1) - a.min(-1)
        ratio = moved.statistic(spreads, over) / math.pi
        exact = over in ("max", "mean") and not moved.rough
        return Limited(ratio, jnp.zeros((), bool), moved.mean(bends) / 2, exact)

    return limit


def curvature(loss: Loss = "cross_entropy") -> Limit:
    r"""Limit how far the quadratic model of the loss along the step climbs back, see `safestep.CurvatureRadius`.

    Equation:
        ``r = p.Gp / (-2 g.p)`` of the mean of the loss over the samples of the batch, by its derivatives along
        ``z + t J p``. inf, and held, where the step goes uphill on its own batch, ``g.p >= 0``.

    Args:
        loss: ``"cross_entropy"``, ``"bce"``, ``"mse"``, ``"half_mse"``, or a function of logits and labels that returns
            a loss for each sample, not averaged, twice differentiable.

    Raises:
        ValueError: for another name.
    """
    if not callable(loss) and loss not in get_args(LossName):
        raise ValueError(
            f"loss={loss!r}: expected one of {', '.join(map(repr, get_args(LossName)))}; for another loss a function "
            "of logits and labels that returns a loss for each sample"
        )

    def limit(moved: MovedLogits) -> Limited:
        slope, bend = map(moved.mean, slope_and_bend(loss, moved))
        down = slope < 0
        ratio = jnp.where(down, bend / (-2 * jnp.where(down, slope, -1)), jnp.inf)
        ratio = jnp.where((slope <= 0) & (bend <= 0), 0.0, ratio)
        uphill = jnp.isinf(ratio) & jnp.isfinite(bend) & (slope >= 0)
        kl = bend / 2 if isinstance(loss, str) and loss in HEADS else jnp.full_like(bend, jnp.nan)
        return Limited(jnp.where(jnp.isnan(slope + bend), jnp.nan, ratio), uphill, kl, not moved.rough)

    return limit


def divergence(max_kl: float = 0.01, *, head: Head = "softmax") -> Limit:
    r"""Limit how far the predictions move, in nats, see `safestep.KLRadius` (without a reference older than the step).

    Equation:
        ``r = sqrt(KL / max_kl)`` with ``KL = mean Var_P(a) / 2``, for sigmoids ``mean sum_k P_k (1 - P_k) a_k^2 / 2``.

    Args:
        max_kl: in nats a sample, positive.
        head: as of `spread`.

    Raises:
        ValueError: for another value.
    """
    KLRadius(max_kl, head=head)  # checks them

    def limit(moved: MovedLogits) -> Limited:
        kl = moved.mean(_bends(head)(moved.logits, moved.tangent)) / 2
        return Limited(jnp.sqrt(kl / max_kl), jnp.zeros((), bool), kl, not moved.rough)

    return limit


def _bends(head: Head) -> Callable[[jax.Array, jax.Array], jax.Array]:
    return sigmoid_bend if head == "sigmoid" else softmax_bend
