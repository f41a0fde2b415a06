"""Pictures of records and of descent: one figure function each, data to matplotlib axes. Needs the extra ``plots``.

Every function draws on the axes given as ``ax=``, or on axes of its own, and returns them. A title says what is shown,
a legend what is what: below the axes, or inside them where their figure has no layout (``layout="constrained"``).
"""

from safestep.plots._matplotlib import matplotlib as _matplotlib  # noqa: F401 (first: it says which extra is missing)
from safestep.plots.affine import affine_histogram, affine_scatter
from safestep.plots.after_drift import Drifted, drift_alphas, drift_losses, drifted_of
from safestep.plots.animation import animate_trace
from safestep.plots.audited import audited_of, audited_ratios
from safestep.plots.autopsied import loss_along_step
from safestep.plots.curves import Band, Curve, curves_of
from safestep.plots.drift_map import DriftMap, drift_maps, drift_maps_of
from safestep.plots.ends_over_rates import ends_over_rates
from safestep.plots.gap_dots import gap_dots
from safestep.plots.gap_panels import GapLine, gap_panels
from safestep.plots.noise_floor import Floor, noise_floor
from safestep.plots.rate_trials import ratio_over_rates
from safestep.plots.run_panels import run_overview, scales, status_shares, step_lengths
from safestep.plots.schedules import schedule_curves
from safestep.plots.seeds import accuracy_over_seeds
from safestep.plots.side_by_side import traces_side_by_side
from safestep.plots.slowdown import slowdown, slowdowns_of
from safestep.plots.steps import effective_lrs, step_ratios
from safestep.plots.throttled_run import throttled_columns, throttled_run
from safestep.plots.traces import trace_contours
from safestep.plots.traces_of_runs import LossBand, loss_over_steps
from safestep.plots.training_curves import effective_lr, largest_ratio, overview, test_accuracy, training_loss
from safestep.plots.zeros import partition_zeros

__all__ = [
    "Band",
    "Curve",
    "DriftMap",
    "Drifted",
    "Floor",
    "GapLine",
    "LossBand",
    "accuracy_over_seeds",
    "affine_histogram",
    "affine_scatter",
    "animate_trace",
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
    "ends_over_rates",
    "gap_dots",
    "gap_panels",
    "largest_ratio",
    "loss_along_step",
    "loss_over_steps",
    "noise_floor",
    "overview",
    "partition_zeros",
    "ratio_over_rates",
    "run_overview",
    "scales",
    "schedule_curves",
    "slowdown",
    "slowdowns_of",
    "status_shares",
    "step_lengths",
    "step_ratios",
    "test_accuracy",
    "throttled_columns",
    "throttled_run",
    "trace_contours",
    "traces_side_by_side",
    "training_loss",
]
