"""The tangent tape: J p of the logits from what the training forward already computed."""

from safestep.tape import attention, linear, lookups, normalisation, pointwise, products, recurrent
from safestep.tape.tape import Tape

__all__ = ["Tape"]

# each module enters its rules when it is imported
_FAMILIES = (attention, linear, lookups, normalisation, pointwise, products, recurrent)
