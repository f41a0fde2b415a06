"""The guard of every row is the guard that `safestep.attach` puts on one run."""

from __future__ import annotations
