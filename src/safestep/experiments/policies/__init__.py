"""Policies that learn to act, and how far an update may move them."""

EXPERIMENTS = {"policy-optimisation": "kl_limits"}
