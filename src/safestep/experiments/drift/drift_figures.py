"""The figures of drift-throttle: what follows the drift, each run in six panels, and the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from safestep.lab.affine_teacher import AffineTeacher
from safestep.records.report import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RUNS = {
    ("B", "none"): ("drift_no_throttle", "B: after the drift, no throttle"),
    ("C", "secant"): ("drift_secant", "C: after the drift, secant law"),
    ("C", "curvature"): ("drift_curvature", "C: after the drift, curvature on the batch"),
    ("A", "none"): ("drift_calm", "A: small rate, small batches, no drift"),
    ("warmup", "none"): ("drift_warmup", "Warm-up: large rate, all the data, no drift"),
}
"""Name and title of the figure of each run, in the order of the page."""
FIGURES = ("drift_losses", "drift_alphas", *(name for name, _ in _RUNS.values()), "drift_data", "drift_histograms")
"""Every figure by name."""


def drift_figures(results: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Return the figures that the records of kind "drift" hold, by name; of several gains and seeds the first.

    Args:
        results: what results.json holds.
        records: of records.jsonl.
    """
    from safestep import plots
    from safestep.plots.panel import panel, single_figure

    pieces = [record for record in records if record.get("kind") == "drift"]
    if not pieces:
        return {}
    figures: dict[str, Figure] = {}
    gain = next((piece["gain"] for piece in pieces if piece["run"] in {"B", "C"}), 1.0)
    if drifted := plots.drifted_of(pieces, gain):
        for name, draw in (("drift_losses", plots.drift_losses), ("drift_alphas", plots.drift_alphas)):
            figures[name] = single_figure()
            draw(drifted, ax=panel(figures[name]))
    seed = pieces[0]["seed"]
    for (run, law), (name, title) in _RUNS.items():
        wanted = (run, law, seed, gain if run in {"B", "C"} else 1.0)
        chosen = [p for p in pieces if (p["run"], p["law"], p["seed"], p["gain"]) == wanted]
        if chosen and "grad_norm" in chosen[0]:
            drift = f" (γ = {gain:g})" if run in {"B", "C"} else ""
            figures[name] = plots.throttled_columns(_joined(chosen), title=f"{title}{drift}, seed {seed}")
    teacher = AffineTeacher(samples=int(results["settings"].get("samples", 1000)), seed=seed)
    return figures | {"drift_data": teacher.plot(), "drift_histograms": teacher.plot_histogram()}


def _joined(pieces: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return the pieces of one run as one list per column, and ``step``."""
    ordered = sorted(pieces, key=lambda piece: piece["first_step"])
    names = [name for name, value in ordered[0].items() if isinstance(value, list)]
    columns = {name: [number(value) for piece in ordered for value in piece[name]] for name in names}
    steps = [piece["first_step"] + place for piece in ordered for place in range(len(piece[names[0]]))]
    return {**columns, "step": [float(step) for step in steps]}
