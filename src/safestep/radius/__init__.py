"""How far may one go along a step? One radius per file, one method each: `measure`."""

from safestep.radius.base import Radius
from safestep.radius.softmax import SoftmaxRadius

__all__ = ["Radius", "SoftmaxRadius"]
