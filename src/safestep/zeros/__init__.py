"""The exact radius: complex zeros of a sample's partition function along a step, certified, and bounds from below."""

from safestep.zeros.dominance import dominance_bound
from safestep.zeros.harmonic import harmonic_bound
from safestep.zeros.in_disc import count_zeros, zeros_within
from safestep.zeros.nearest_zero import NearestZero, nearest_zero

__all__ = ["NearestZero", "count_zeros", "dominance_bound", "harmonic_bound", "nearest_zero", "zeros_within"]
