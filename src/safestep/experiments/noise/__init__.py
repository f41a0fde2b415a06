"""Noisy gradient descent on a plane, held against its exact law."""
