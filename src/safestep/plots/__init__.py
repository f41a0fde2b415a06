"""Pictures of records: one figure function each, record to matplotlib axes. Needs the extra ``plots``.

Every function draws on the axes given as ``ax=``, or on axes of its own, and returns them. Titles are computed from
the data: they state what the picture shows, whatever the settings were.
"""

from safestep.plots._extra import matplotlib as _matplotlib  # noqa: F401 (first: it says which extra is missing)
from safestep.plots.affine import affine_histogram, affine_scatter
from safestep.plots.after_drift import Drifted, drift_alphas, drift_losses, drifted_of
from safestep.plots.audited import audited_of, audited_ratios
from safestep.plots.curves import Band, Curve, curves_of
from safestep.plots.divergence import DriftMap, drift_maps, drift_maps_of
from safestep.plots.learning_rate import ratio_over_rates
from safestep.plots.seeds import accuracy_over_seeds
from safestep.plots.slowdown import slowdown, slowdowns_of
from safestep.plots.steps import effective_lrs, step_ratios
from safestep.plots.throttled import throttled_columns, throttled_run
from safestep.plots.training import effective_lr, largest_ratio, overview, test_accuracy, training_loss

__all__ = [
    "Band",
    "Curve",
    "DriftMap",
    "Drifted",
    "accuracy_over_seeds",
    "affine_histogram",
    "affine_scatter",
    "audited_of",
    "audited_ratios",
    "curves_of",
    "drift_alphas",
    "drift_losses",
    "drift_maps",
    "drift_maps_of",
    "drifted_of",
    "effective_lr",
    "effective_lrs",
    "largest_ratio",
    "overview",
    "ratio_over_rates",
    "slowdown",
    "slowdowns_of",
    "step_ratios",
    "test_accuracy",
    "throttled_columns",
    "throttled_run",
    "training_loss",
]
