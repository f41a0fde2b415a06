"""temperature: how far apart harm sets in over temperatures, in the learning rate, in the step's length, and in r."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from safestep.experiments.limits.limits_summary import groups_of
from safestep.experiments.paper.paper_experiment import COMPARED, PaperExperiment, PaperSettings, against, log_spread
from safestep.experiments.paper.paper_figures import Line
from safestep.experiments.paper.paper_tasks import PERCEPTRON
from safestep.experiments.paper.paper_words import TEMPERATURE
from safestep.experiments.runner.experiment import Column, Record, Row, Run, Words
from safestep.records.report import number, plain

PAPER = {"rate": ("learning rate", 0.992), "length": ("length", 0.992), "onset": ("r", 0.164)}
"""Units of the onset, and the spreads of the paper's abstract, which says before and after, but not before what."""


@dataclass(frozen=True, kw_only=True)
class TemperatureSettings(PaperSettings):
    """Settings of temperature, with the paper's onset there: twice the loss.

    Attributes:
        temperatures: what logits are divided by.
    """

    QUICK: ClassVar[dict[str, Any]] = {"temperatures": (0.5, 2.0), "checkpoints": (10,), "points": 9}

    architectures: tuple[str, ...] = (PERCEPTRON,)
    checkpoints: tuple[int, ...] = (120,)
    temperatures: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0)
    directions: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        values = self.temperatures
        usable = 1 < len(values) == len(set(values)) and all(1e-6 <= value <= 1e6 for value in values)
        self.require(usable, "temperatures", "two numbers or more from 1e-6 to 1e6, each once")


@dataclass(frozen=True, kw_only=True)
class Temperature(PaperExperiment[TemperatureSettings]):
    """A model at every temperature: trained at it, or trained at 1 and read at it."""

    words: ClassVar[Words | None] = TEMPERATURE
    pictures: ClassVar[Mapping[str, tuple[str, str, str]]] = {
        "over_temperatures": ("inflation", "loss / loss before", "Loss over temperatures")
    }
    across: ClassVar[str] = "r, or length"
    own_figures: ClassVar[tuple[str, ...]] = tuple(pictures)
    summary_columns: tuple[Column, ...] = (*COMPARED, Column("none", "no onset up to r = 100", short="none"))

    def runs(self, settings: TemperatureSettings, seeds: Sequence[int]) -> list[Run]:
        """Return every model at every temperature, in both ways."""
        every = itertools.product(("trained", "read"), settings.temperatures, super().runs(settings, seeds))
        return [
            Run(f"{run.label}, {way} at {one:g}", run.seed, {**run.options, "way": way, "temperature": one})
            for way, one, run in every
        ]

    def lines(self, record: Record, shown: str) -> Iterator[tuple[str, Line]]:
        """Yield a line against r, and one against the length of the step."""
        label = f"T = {record['temperature']:g}"
        yield f"{record['way']} at T: r", Line(label, record["r"], record[shown])
        lengths = [record["length"] * r for r in record["r"]]
        yield f"{record['way']} at T: length", Line(label, lengths, record[shown])

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return the spread over temperatures in every unit: the mean over seeds, its error, and the paper's number."""
        found: list[Row] = []
        several = len(groups_of(rows, "architecture", "steps")) > 1
        for (model, steps, way), group in groups_of(rows, "architecture", "steps", "way").items():
            none = sum(math.isinf(number(row["onset"])) for row in group)
            seeds = list(groups_of(group, "seed").values())
            for key, (unit, paper) in PAPER.items():
                spreads = [log_spread(number(row[key]) for row in seed) for seed in seeds]
                known = [spread for spread in spreads if not math.isnan(spread)]  # a run may still be missing
                case = f"{model}, {steps} steps, {way} at T" if several else f"{way} at T"
                compared = against(f"{case}: {unit}", known, paper)
                found.append(plain({**compared, "case": case, "unit": unit, "none": none}))
        return found

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return the spreads, beside the paper's, of up to three cases."""
        told = []
        for (case,), group in groups_of(results["summary"], "case").items():
            spreads = ", ".join(f"{number(row['ours']):.3f} in {row['unit']}" for row in group)
            told.append(f"Spread of the onset, {case}: {spreads} (paper: 0.992 before, 0.164 in r).")
        return told[:3]


experiment = Temperature(
    name="temperature",
    about="how far apart harm sets in over temperatures, in the learning rate, in the length of a step and in r",
    settings=TemperatureSettings,
)
