"""The figure of no-rate and spikes: every run's gap to the tuned plain one, by method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from safestep.experiments.evidence.evidence_methods import DEFAULT, OURS, PLAIN
from safestep.experiments.evidence.evidence_summary import beside_tuned
from safestep.experiments.limits.limits_summary import groups_of
from safestep.experiments.runner.experiment import Row
from safestep.lab.disturbances import Disturbance

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def dots(rows: Sequence[Row], key: str, title: str, names: Mapping[str, Disturbance] | None = None) -> Figure:
    """Return the gaps of all runs but the plain ones that are compared with, a panel for every value of a key.

    Args:
        rows: of results.json.
        key: what panels differ in.
        title: above all panels.
        names: the words for the values of the key, where they are names of disturbances.
    """
    from safestep import plots

    panels: dict[str, dict[str, list[float]]] = {}
    compared = [row for row in beside_tuned(rows) if row["policy"] != PLAIN]
    for (value, method), group in groups_of(compared, key, "method").items():
        panels.setdefault(names[value].words if names else value, {})[method] = [row["excess"] for row in group]
    return plots.gap_dots(panels, ours=(DEFAULT, *OURS), title=title)
