"""Regressions whose inputs drift, with and without the throttle."""

EXPERIMENTS = {
    "drift-throttle": "drift_throttle",
    "drift-map": "drift_map_experiment",
    "drift-optimizers": "drift_optimizers",
}
