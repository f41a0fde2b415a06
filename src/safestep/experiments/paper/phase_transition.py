"""phase-transition: single steps from early, mid and late checkpoints of six architectures, and where they harm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from safestep.experiments.limits.limits_summary import groups_of
from safestep.experiments.paper.paper_experiment import HALF, KEPT, PaperExperiment, PaperSettings, near
from safestep.experiments.paper.paper_tasks import LINEAR, PERCEPTRON
from safestep.experiments.paper.paper_words import PHASE_TRANSITION
from safestep.experiments.report.tables import cell
from safestep.experiments.runner.experiment import Column, Words
from safestep.records.report import number


@dataclass(frozen=True, kw_only=True)
class PhaseSettings(PaperSettings):
    """Settings of phase-transition, with the onset of the paper's code there: a tenth more loss."""

    QUICK: ClassVar[dict[str, Any]] = {"architectures": (LINEAR, PERCEPTRON), "checkpoints": (2, 10), "points": 9}

    checkpoints: tuple[int, ...] = (10, 60, 300)
    inflation: float = 1.1


@dataclass(frozen=True, kw_only=True)
class PhaseTransition(PaperExperiment[PhaseSettings]):
    """Every architecture at every checkpoint, along the gradient and one random direction."""

    words: ClassVar[Words | None] = PHASE_TRANSITION
    pictures: ClassVar[Mapping[str, tuple[str, str, str]]] = {
        "accuracy_kept": ("kept", "accuracy kept", "Accuracy after one step"),
        "loss_inflation": ("inflation", "loss / loss before", "Loss after one step"),
    }
    own_figures: ClassVar[tuple[str, ...]] = tuple(pictures)
    summary_columns: tuple[Column, ...] = (
        Column("label", "checkpoint"),
        KEPT,
        HALF,
        Column("onset", "r of the onset, gradient", "#.3g", short="onset"),
        Column("random", "random direction", "#.3g", short="random"),
        Column("runs", "runs"),
    )

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return what steps inside the radius lose, and where accuracy goes and loss rises, beside the paper."""
        rows, grown = results["rows"], results["settings"]["inflation"]
        by_steps = {steps: group for (steps,), group in sorted(groups_of(rows, "steps").items())}
        kept = [f"{min(number(row['kept']) for row in group):.0%} after {steps}" for steps, group in by_steps.items()]
        late, last = list(by_steps.items())[-1]
        half = sorted(number(row["collapse"]) for row in last)
        ends, within = f"{cell(half[0], '#.3g')} to {cell(half[-1], '#.3g')}", sum(1 <= one <= 10 for one in half)
        down = [number(row["onset"]) for row in rows]
        random = [number(onset) for row in rows for onset in row["onsets"]]
        return [
            f"Least accuracy kept by any step up to r = 1: {', '.join(kept)} steps of training (paper: all).",
            f"After {late} steps half of it goes at r = {ends}, {within} of {len(half)} within 1 to 10 (paper: all).",
            f"Loss ×{grown:g} within a factor of 2 of r = 1: {near(down)} gradients, {near(random)} random directions.",
        ]


experiment = PhaseTransition(
    name="phase-transition",
    about="single steps from early, mid and late checkpoints of six architectures, and from which r on they harm",
    settings=PhaseSettings,
)
