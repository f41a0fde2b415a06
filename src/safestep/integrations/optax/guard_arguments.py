"""What a guard and its update are called with, looked at before jax stumbles over it."""

from __future__ import annotations

from typing import Any

from safestep.errors import AttachError
from safestep.integrations.optax import combined_limits, step_limits
from safestep.integrations.optax._jax import Tree, jax, optax

_MADE_BY = (step_limits.__name__, combined_limits.__name__)
"""Modules whose functions are limits, or make them."""
_MAKERS = (
    step_limits.spread,
    step_limits.curvature,
    step_limits.divergence,
    combined_limits.tightest,
    combined_limits.default_limit,
)


def check_made_with(logits_fn: Any, limit: Any, target: Any) -> None:
    """Raise an `AttachError` for what can be neither of the three."""
    if not callable(logits_fn):
        raise AttachError(
            f"logits_fn = {logits_fn!r}: expected the forward, a function of parameters and inputs that returns logits"
        )
    if not callable(limit) or limit in _MAKERS:
        seen = f"{limit.__name__}, not called" if callable(limit) else repr(limit)
        raise AttachError(f"limit = {seen}: expected one that was made, such as spread() or curvature('mse')")
    if getattr(target, "__module__", None) in _MADE_BY:
        raise AttachError("target = a limit: expected a number or a schedule; name the limit, limit=spread()")


def check_updated_with(params: Tree, extra: dict[str, Any]) -> None:
    """Raise an `AttachError` where there is no batch to measure on, or not all of the parameters."""
    if params is None or "inputs" not in extra:
        raise AttachError(
            "a guard measures the step on its batch: call tx.update(grads, state, params, inputs=x, labels=y), "
            f"saw {'no parameters' if params is None else 'no inputs'} (TrainState.apply_gradients of flax hands no "
            "inputs on: call its tx.update)"
        )
    leaves = jax.tree.leaves(params, is_leaf=lambda node: isinstance(node, optax.MaskedNode))
    if any(isinstance(leaf, optax.MaskedNode) for leaf in leaves):
        raise AttachError(
            "saw a part of the parameters, as inside optax.masked and optax.partition: put the guard behind them, "
            "optax.chain(optax.partition(...), cap(logits_fn)), since it runs the whole model"
        )
