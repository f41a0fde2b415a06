"""Probes of a guard, ``attach(..., probes=[...])``: columns for its records, training left as it is bit for bit."""

from safestep.tools.probes.finite import Finite
from safestep.tools.probes.geometry import Geometry
from safestep.tools.probes.loss import Loss
from safestep.tools.probes.published import FIELDS, published
from safestep.tools.probes.secant import Secant
from safestep.tools.probes.sharpness import Sharpness
from safestep.tools.probes.teacher import Teacher

__all__ = ["FIELDS", "Finite", "Geometry", "Loss", "Secant", "Sharpness", "Teacher", "published"]
