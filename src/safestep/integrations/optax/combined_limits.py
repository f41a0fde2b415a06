"""Limits made of others: the tightest of several, and the recommended one."""

from __future__ import annotations

import math
from collections.abc import Mapping

from safestep.formulas.softmax_ratio import Head
from safestep.integrations.optax._jax import jnp
from safestep.integrations.optax.loss_along import Loss
from safestep.integrations.optax.moved_logits import MovedLogits
from safestep.integrations.optax.step_limits import HEADS, Limit, Limited, curvature, spread
from safestep.radius.default_limit import CURVATURE, FRESH, SPREAD
from safestep.radius.fresh_slope import FreshSlope


def tightest(limits: Mapping[Limit, float]) -> Limit:
    r"""Limit a step by several limits at once, see `safestep.Tightest`.

    Equation:
        ``r = max_i r_i / target_i``.

    Args:
        limits: with the target of each, a positive number.

    Raises:
        ValueError: without a limit, or for another target.
        TypeError: for anything but a mapping.
    """
    if not isinstance(limits, Mapping):
        raise TypeError(f"tightest({type(limits).__name__}): expected a dict, {{limit: target, ...}}")
    if not limits or not all(0.0 < target < math.inf for target in limits.values()):
        raise ValueError(f"tightest: targets {list(limits.values())}: expected at least one limit, each with a number")

    def limit(moved: MovedLogits) -> Limited:
        found = [(one(moved), target) for one, target in limits.items()]
        ratio = jnp.stack([said.ratio / target for said, target in found]).max()  # nan binds
        told = jnp.stack([said.kl for said, _ in found])
        kl = told[jnp.argmin(jnp.isnan(told))]
        return Limited(ratio, jnp.stack([s.uphill for s, _ in found]).any(), kl, all(s.exact for s, _ in found))

    return limit


def default_limit(
    loss: Loss = "cross_entropy", *, head: Head | None = None, targets: tuple[float, float] = (CURVATURE, SPREAD)
) -> Limit:
    r"""Return the recommended limit, as far as one batch tells it, see `safestep.default_limit`.

    Equation:
        ``r = max(p.Gp / (-2 sqrt(1/2) g.p) / 0.45, mean spread(J p) / (0.5 pi))``, by the two targets.

    Args:
        loss: a cross-entropy: ``"cross_entropy"``, ``"bce"``, or a function as of `curvature`.
        head: of the spread; None where the name of the loss tells it.
        targets: of the curvature and the spread. A chain does not know its optimizer: as a torch guard does, take
            ``(0.9, 1.5)`` after ``optax.sgd`` and ``(0.9, 0.5)`` where it has momentum.

    Raises:
        ValueError: for a squared error, which has no spread, or a function without its head.

    Note:
        What the next batches find of the slope is not looked at: its share stays one half, where a torch guard starts.
    """
    head = head or (HEADS.get(loss) if isinstance(loss, str) else None)
    if head is None:
        raise ValueError(
            f"default_limit({loss!r}): expected 'cross_entropy' or 'bce', or a function with head='softmax' or "
            "'sigmoid'; for a squared error use curvature(loss)"
        )
    bend, apart = targets
    return tightest({curvature(loss): bend * FreshSlope().share ** FRESH, spread("mean", head=head): apart})
