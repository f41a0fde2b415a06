"""Noisy gradient descent on a plane, held against its exact law."""

EXPERIMENTS = {"noisy-descent": "noisy_descent", "noise-floor": "floor_experiment"}
