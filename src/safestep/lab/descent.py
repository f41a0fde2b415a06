"""The former place of `safestep.descent`."""

from __future__ import annotations

import warnings

from safestep.descent import *  # noqa: F403
from safestep.descent import __all__  # noqa: F401

warnings.warn("safestep.lab.descent is now safestep.descent", DeprecationWarning, stacklevel=2)
