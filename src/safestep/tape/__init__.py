"""The tangent tape: J p of the logits from what the training forward already computed."""

from safestep.tape import attention, linear, lookups, norms, pointwise, products, recurrent
from safestep.tape.tape import Tape

__all__ = ["Tape"]

_FAMILIES = (attention, linear, lookups, norms, pointwise, products, recurrent)  # each enters its rules when imported
