"""safestep in JAX: transformations of optax, last in a chain, that measure its whole step and keep it short."""

from safestep.integrations.optax.combined_limits import default_limit, tightest
from safestep.integrations.optax.guard_state import GuardState, read, read_all
from safestep.integrations.optax.guarded_updates import cap, pin, watch
from safestep.integrations.optax.step_limits import Limit, curvature, divergence, spread
from safestep.integrations.optax.throttled_updates import throttle

__all__ = [
    "GuardState",
    "Limit",
    "cap",
    "curvature",
    "default_limit",
    "divergence",
    "pin",
    "read",
    "read_all",
    "spread",
    "throttle",
    "tightest",
    "watch",
]
