"""What the studies have in common: a run takes steps from one checkpoint, and its records are courses by direction."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

import torch

from safestep.experiments.paper.one_step import LEAST, Course, course, crossing, downhill, random_direction
from safestep.experiments.paper.paper_figures import Line, course_panels
from safestep.experiments.paper.paper_tasks import ARCHITECTURES, checkpoint
from safestep.experiments.runner.experiment import Column, Experiment, Record, Row, Run, grouped
from safestep.experiments.runner.settings import Settings
from safestep.records.report import number, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRADIENT = "gradient"


@dataclass(frozen=True, kw_only=True)
class PaperSettings(Settings):
    """Settings of every study.

    Attributes:
        architectures: what is trained.
        checkpoints: steps of training before the model that is looked at.
        directions: random ones, beside the gradient.
        points: values of r from 0.01 to 100, at equal factors.
        inflation: the onset of harm is where the loss on the batch is so many times that before the step.
    """

    architectures: tuple[str, ...] = ARCHITECTURES
    checkpoints: tuple[int, ...] = (300,)
    directions: int = 1
    points: int = 41
    inflation: float = 2.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require_names("architectures", ARCHITECTURES)
        counts = self.checkpoints
        usable = 0 < len(counts) == len(set(counts)) and all(0 <= count <= 10**6 for count in counts)
        self.require(usable, "checkpoints", "whole numbers from 0 to 1000000, each once")
        self.require_range(0, 10**4, "directions")
        self.require_range(2, 10**4, "points")
        self.require(1.0 < self.inflation <= 1e6, "inflation", "more than 1 and at most 1e6")


S = TypeVar("S", bound=PaperSettings)
_PAPER: Row = {"label": "paper", "kept": "all", "collapse": "1 to 10", "onset": "near 1", "random": "near 1"}


@dataclass(frozen=True, kw_only=True)
class PaperExperiment(Experiment[S], Generic[S]):
    """Steps of every r from every checkpoint, down the gradient of a batch and in random directions."""

    columns: tuple[Column, ...] = (
        Column("label", "run"),
        Column("onset", "r of the onset", "#.3g", short="onset"),
        Column("kept", "least kept up to r = 1", ".1%", short="kept"),
        Column("collapse", "r of half the accuracy", "#.3g", short="half"),
        Column("length", "length of the onset", "#.3g", short="length"),
        Column("rate", "rate of the onset", "#.3g", short="rate"),
    )
    summary_always: bool = True
    pictures: ClassVar[Mapping[str, tuple[str, str, str]]]
    """By the name of a figure, what of a course it shows, in which words, and its title."""

    across: ClassVar[str] = "r"
    """What the figures have along x."""

    def lines(self, record: Record, shown: str) -> Iterator[tuple[str, Line]]:
        """Yield the lines of a record, each with the name of its panel; random directions are dotted."""
        random = record["direction"] != GRADIENT
        yield record["architecture"], Line(f"{record['steps']} steps", record["r"], record[shown], random)

    def runs(self, settings: S, seeds: Sequence[int]) -> list[Run]:
        """Return every architecture at every checkpoint."""
        every = itertools.product(settings.architectures, settings.checkpoints, seeds)
        fixed = {"way": "trained", "temperature": 1.0}
        return [
            Run(f"{architecture}, {steps} steps", seed, {"architecture": architecture, "steps": steps, **fixed})
            for architecture, steps, seed in every
        ]

    def seconds_per_run(self, settings: S) -> float:
        """Return about how long one run takes on one core."""
        return 1.0 + 0.01 * settings.points * (1 + settings.directions)

    def execute(self, settings: S, run: Run) -> Generator[Record, None, Row]:
        """Train to the checkpoint, and take every step from it."""
        name = {"label": run.label, "seed": run.seed, **run.options}
        model, batch, held_out = checkpoint(run.seed, **run.options)
        ratios = [10 ** (4 * place / (settings.points - 1) - 2) for place in range(settings.points)]
        generator, courses, onsets = torch.Generator().manual_seed(run.seed), list[Course](), list[float]()
        for place in range(1 + settings.directions):
            step = random_direction(model, generator) if place else downhill(model, batch)
            one = course(model, step, batch, held_out, ratios)
            record = {"kind": "course", **name, "direction": f"random {place}" if place else GRADIENT, "r": ratios}
            yield cast(Record, plain({**record, **asdict(one)}))
            courses.append(one)
            onsets.append(crossing(ratios, one.inflation, settings.inflation))
        inside = [kept for one in courses for r, kept in zip(ratios, one.kept, strict=True) if r <= 1.0]
        row = {
            "onset": onsets[0],
            "kept": min(inside),
            "collapse": crossing(ratios, [1.0 / max(kept, LEAST) for kept in courses[0].kept], 2.0),
            "length": onsets[0] * courses[0].length,
            "rate": onsets[0] * courses[0].rate,
            "onsets": onsets[1:],
            "lengths": [onset * one.length for onset, one in zip(onsets, courses, strict=True)][1:],
        }
        return cast(Row, plain({**name, **row}))

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return what every checkpoint and all of them come to, over seeds and directions, and what the paper has."""
        groups = [(group[0]["label"], group) for group in grouped(rows)]
        return [*(_summary(*group) for group in (*groups, ("all", list(rows)))), _PAPER] if rows else []

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return what steps do against r, a panel for every case."""
        figures = {}
        for figure, (shown, words, title) in self.pictures.items():
            panels: dict[str, list[Line]] = {}
            for panel, line in (pair for record in records for pair in self.lines(record, shown)):
                panels.setdefault(panel, []).append(line)
            figures[figure] = course_panels(panels, x=self.across, y=words, title=title, log=shown == "inflation")
        return figures


def _summary(label: str, rows: Sequence[Row]) -> Row:
    random, lengths = ([number(one) for row in rows for one in row[key]] for key in ("onsets", "lengths"))
    told = {key: statistics.median(number(row[key]) for row in rows) for key in ("onset", "collapse")}
    summary = {
        "label": label,
        "kept": min(number(row["kept"]) for row in rows),
        **told,
        "random": statistics.median(random) if random else None,
        "low": min(random, default=None),
        "high": max(random, default=None),
        "spread": log_spread(random),
        "spread_length": log_spread(lengths),
        "directions": len(random),
        "runs": len(rows),
    }
    return cast(Row, plain(summary))


def log_spread(values: Iterable[float]) -> float:
    """Return the standard deviation (ddof 1) of log10 of what is finite; nan for fewer than two.

    Example:
        >>> round(log_spread([1.0, 10.0, 100.0, math.inf]), 12)
        1.0
    """
    logs = [math.log10(value) for value in values if math.isfinite(value)]
    return statistics.stdev(logs) if len(logs) > 1 else math.nan


def near(onsets: Iterable[float]) -> str:
    """Return how many onsets are within a factor of 2 of r = 1.

    Example:
        >>> near([0.4, 0.5, 1.0, math.inf])
        '2 of 4'
    """
    found = [0.5 <= onset <= 2.0 for onset in onsets]
    return f"{sum(found)} of {len(found)}"
