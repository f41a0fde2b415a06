"""Regressions whose inputs drift, with and without the throttle."""
