"""The exact radius: complex zeros of a sample's partition function along a step, certified, and bounds from below."""

from safestep.zeros.bounds import dominance_bound, harmonic_bound
from safestep.zeros.nearest_zero import NearestZero, count_zeros, nearest_zero, zeros_within

__all__ = ["NearestZero", "count_zeros", "dominance_bound", "harmonic_bound", "nearest_zero", "zeros_within"]
