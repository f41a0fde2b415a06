"""Diagnostics of a guard: columns for its records, training left as it is bit for bit."""

from safestep.tools.diagnostics.exact_radius import ExactRadius
from safestep.tools.diagnostics.finite import Finite
from safestep.tools.diagnostics.geometry import Geometry
from safestep.tools.diagnostics.loss import Loss
from safestep.tools.diagnostics.published import FIELDS, published
from safestep.tools.diagnostics.secant_columns import Secant
from safestep.tools.diagnostics.sharpness import Sharpness
from safestep.tools.diagnostics.teacher import Teacher

__all__ = ["FIELDS", "ExactRadius", "Finite", "Geometry", "Loss", "Secant", "Sharpness", "Teacher", "published"]
