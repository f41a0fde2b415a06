"""The checks that the settings of the drift studies share."""

from __future__ import annotations

from collections.abc import Iterable

from safestep.experiments.runner.settings import Settings


class DriftSettings(Settings):
    """Settings that choose among names, and count."""

    def require_names(self, **choices: Iterable[str]) -> None:
        """Check that each of these settings holds some of its names, each at most once."""
        for key, names in choices.items():
            chosen = getattr(self, key)
            usable = len(set(chosen)) == len(chosen) > 0 and set(chosen) <= set(names)
            self.require(usable, key, f"each at most once of {', '.join(names)}")

    def require_counts(self, *keys: str) -> None:
        """Check that each of these settings is a count."""
        for key in keys:
            self.require(1 <= getattr(self, key) <= 10**6, key, "at least 1 and at most 1000000")

    def require_margin(self, chi: float) -> None:
        """Check the aim of the throttle."""
        self.require(0.0 < chi < 2.0, "chi", "a margin between 0 and 2, the limit of stability")
