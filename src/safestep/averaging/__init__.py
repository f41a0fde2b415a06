"""Averages of the weights that stand in for a schedule: `Averaged`, around any optimizer."""

from safestep.averaging.averaged import Averaged

__all__ = ["Averaged"]
