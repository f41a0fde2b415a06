"""The figures of drift-throttle: what follows the drift, each run in six panels, and the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from safestep.lab.affine_teacher import AffineTeacher
from safestep.records.report import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUNS = ("drift_no_throttle", "drift_secant", "drift_curvature", "drift_calm", "drift_warmup")
"""The figures of single runs, in the order of a page."""
FIGURES = ("drift_losses", "drift_alphas", *RUNS, "drift_data", "drift_histograms")
"""All of them."""
_OF_RUN = {("B", "none"): RUNS[0], ("C", "secant"): RUNS[1], ("C", "curvature"): RUNS[2]} | {
    ("A", "none"): RUNS[3],
    ("warmup", "none"): RUNS[4],
}
_TITLES = {
    RUNS[0]: "B: after the drift, no throttle",
    RUNS[1]: "C: after the drift, secant law",
    RUNS[2]: "C: after the drift, curvature on the batch",
    RUNS[3]: "A: small rate, small batches, no drift",
    RUNS[4]: "Warm-up: large rate, all the data, no drift",
}


def drift_figures(results: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Return the figures that the records of kind "drift" hold, by name; of several gains the first is drawn.

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
    for (run, law), name in _OF_RUN.items():
        chosen = [piece for piece in pieces if (piece["run"], piece["law"], piece["seed"]) == (run, law, seed)]
        chosen = [piece for piece in chosen if run not in {"B", "C"} or piece["gain"] == gain]
        if chosen and "grad_norm" in chosen[0]:
            drift = f" (γ = {gain:g})" if run in {"B", "C"} else ""
            figures[name] = plots.throttled_columns(_joined(chosen), title=f"{_TITLES[name]}{drift}, seed {seed}")
    teacher = AffineTeacher(samples=int(results["settings"].get("samples", 1000)), seed=seed)
    return figures | {"drift_data": teacher.plot(), "drift_histograms": teacher.plot_histogram()}


def _joined(pieces: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return the pieces of one run as one list per column, and ``step``."""
    ordered = sorted(pieces, key=lambda piece: piece["first_step"])
    names = [name for name, value in ordered[0].items() if isinstance(value, list)]
    columns = {name: [number(value) for piece in ordered for value in piece[name]] for name in names}
    steps = [piece["first_step"] + place for piece in ordered for place in range(len(piece[names[0]]))]
    return {**columns, "step": [float(step) for step in steps]}
