"""safestep in Keras 3: a throttled optimizer, its log, and models whose steps are kept inside a radius."""

from safestep.integrations.keras.guarded import GuardedModel, StepGuard
from safestep.integrations.keras.log import ThrottleLog
from safestep.integrations.keras.throttled_optimizer import Throttled

__all__ = ["GuardedModel", "StepGuard", "ThrottleLog", "Throttled"]
