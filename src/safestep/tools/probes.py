"""The former name of `safestep.tools.diagnostics`."""

import warnings

from safestep.tools.diagnostics import FIELDS, Finite, Geometry, Loss, Secant, Sharpness, Teacher, published

__all__ = ["FIELDS", "Finite", "Geometry", "Loss", "Secant", "Sharpness", "Teacher", "published"]

warnings.warn(
    "safestep.tools.probes is now called safestep.tools.diagnostics: import it by that name",
    DeprecationWarning,
    stacklevel=2,
)
