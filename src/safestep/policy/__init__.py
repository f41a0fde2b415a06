"""What to do about the ratio of a step? One policy per file, one method each: `scale`."""

from safestep.policy.aimed import Target
from safestep.policy.cap import Cap
from safestep.policy.pin import Pin
from safestep.policy.policy import Policy
from safestep.policy.throttle import Throttle
from safestep.policy.watch import Watch

__all__ = ["Cap", "Pin", "Policy", "Target", "Throttle", "Watch"]
