"""random-directions: twenty random directions at trained models: how far apart harm sets in, as length and as r."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from safestep.experiments.paper.paper_experiment import PaperExperiment, PaperSettings, near
from safestep.experiments.paper.paper_tasks import LINEAR, PERCEPTRON
from safestep.experiments.paper.paper_words import RANDOM_DIRECTIONS
from safestep.experiments.runner.experiment import Column, Words
from safestep.records.report import number


@dataclass(frozen=True, kw_only=True)
class DirectionSettings(PaperSettings):
    """Settings of random-directions, with the onset of the paper's code there: twice the loss."""

    QUICK: ClassVar[dict[str, Any]] = {
        "architectures": (LINEAR, PERCEPTRON), "checkpoints": (10,), "points": 9, "directions": 3
    }  # fmt: skip

    directions: int = 20

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require_range(2, 10**4, "directions")


@dataclass(frozen=True, kw_only=True)
class RandomDirections(PaperExperiment[DirectionSettings]):
    """Every architecture, trained, along the gradient and many random directions."""

    words: ClassVar[Words | None] = RANDOM_DIRECTIONS
    pictures: ClassVar[Mapping[str, tuple[str, str, str]]] = {
        "random_directions": ("inflation", "loss / loss before", "Loss in random directions")
    }
    own_figures: ClassVar[tuple[str, ...]] = tuple(pictures)
    summary_columns: tuple[Column, ...] = (
        Column("label", "model"),
        Column("random", "median r of the onset", "#.3g", short="onset"),
        Column("spread", "spread in r", ".3f", short="in r"),
        Column("spread_length", "spread in length", ".3f", short="length"),
        Column("low", "least r", "#.3g"),
        Column("high", "largest r", "#.3g"),
        Column("onset", "gradient", "#.3g"),
        Column("directions", "directions"),
    )

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return where the onset lies over all, and how far apart in r and in length."""
        *models, every, _ = results["summary"]
        inside = [number(row["spread"]) for row in models]
        low, median, high = (f"{number(every[key]):.2f}" for key in ("low", "random", "high"))
        count = near(number(one) for row in results["rows"] for one in row["onsets"])
        spread, of_length = number(every["spread"]), number(every["spread_length"])
        return [
            f"Onset at r = {low} to {high}, median {median} (paper: near 1); {count} within a factor of 2 of r = 1.",
            f"Spread of log10 over all models: {spread:.3f} in r, {of_length:.3f} in length.",
            f"Within one model and over its seeds: {min(inside):.3f} to {max(inside):.3f} in r.",
        ]


experiment = RandomDirections(
    name="random-directions",
    about="twenty random directions at trained models: how far apart harm sets in, as length and as r",
    settings=DirectionSettings,
)
