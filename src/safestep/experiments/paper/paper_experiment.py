"""What the studies have in common: a run takes steps from one checkpoint, and its records are courses by direction."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from safestep.experiments.paper.one_step import (
    LEAST,
    Course,
    Displacement,
    course,
    crossing,
    downhill,
    random_direction,
)
from safestep.experiments.paper.paper_figures import Line, course_panels
from safestep.experiments.paper.paper_tasks import ACTIVATIONS, ARCHITECTURES, checkpoint
from safestep.experiments.runner.experiment import Column, Experiment, Record, Row, Run, grouped
from safestep.experiments.runner.settings import Settings
from safestep.records.report import number, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRADIENT = "gradient"


@dataclass(frozen=True, kw_only=True)
class TrainedSettings(Settings):
    """Settings of what is looked at.

    Attributes:
        architectures: what is trained.
        checkpoints: steps of training before the model that is looked at.
    """

    architectures: tuple[str, ...] = ARCHITECTURES
    checkpoints: tuple[int, ...] = (300,)

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require_names("architectures", (*ARCHITECTURES, *ACTIVATIONS))
        counts = self.checkpoints
        usable = 0 < len(counts) == len(set(counts)) and all(0 <= count <= 10**6 for count in counts)
        self.require(usable, "checkpoints", "whole numbers from 0 to 1000000, each once")


@dataclass(frozen=True, kw_only=True)
class PaperSettings(TrainedSettings):
    """Settings of the studies that take steps.

    Attributes:
        directions: random ones, beside the gradient.
        points: values of r from 0.01 to 100, at equal factors.
        inflation: the onset of harm is where the loss on the batch is so many times that before the step.
    """

    directions: int = 1
    points: int = 41
    inflation: float = 2.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require_range(0, 10**4, "directions")
        self.require_range(2, 10**4, "points")
        self.require(1.0 < self.inflation <= 1e6, "inflation", "more than 1 and at most 1e6")


T = TypeVar("T", bound=TrainedSettings)
S = TypeVar("S", bound=PaperSettings)
KEPT = Column("kept", "least kept up to r = 1", ".1%", short="kept")
HALF = Column("collapse", "r of half the accuracy", "#.3g", short="half")
_PAPER: Row = {"label": "paper", "kept": "all", "collapse": "1 to 10", "onset": "near 1", "random": "near 1"}


@dataclass(frozen=True, kw_only=True)
class TrainedExperiment(Experiment[T], Generic[T]):
    """Something is looked at, at every checkpoint."""

    summary_always: bool = True

    def runs(self, settings: T, seeds: Sequence[int]) -> list[Run]:
        """Return every architecture at every checkpoint."""
        every = itertools.product(settings.architectures, settings.checkpoints, seeds)
        fixed = {"way": "trained", "temperature": 1.0}
        return [Run(f"{name}, {steps} steps", seed, {"architecture": name, "steps": steps, **fixed})
                for name, steps, seed in every]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PaperExperiment(TrainedExperiment[S], Generic[S]):
    """Steps of every r from every checkpoint, down the gradient of a batch and in random directions."""

    columns: tuple[Column, ...] = (
        Column("label", "run"), Column("onset", "r of the onset", "#.3g", short="onset"), KEPT, HALF,
        Column("length", "length of the onset", "#.3g", short="length"),
        Column("rate", "rate of the onset", "#.3g", short="rate"),
    )  # fmt: skip
    pictures: ClassVar[Mapping[str, tuple[str, str, str]]]
    """By the name of a figure, what of a course it shows, in which words, and its title."""

    across: ClassVar[str] = "r"
    dotted: ClassVar[str] = "random direction"
    """What the figures have along x, and what their dotted lines are."""

    def lines(self, record: Record, shown: str) -> Iterator[tuple[str, Line]]:
        """Yield the lines of a record, each with the name of its panel; random directions are dotted."""
        random = record["direction"] != GRADIENT
        yield record["architecture"], Line(f"{record['steps']} steps", record["r"], record[shown], random)

    def seconds_per_run(self, settings: S) -> float:
        """Return about how long one run takes on one core."""
        return 1.0 + 0.01 * settings.points * (1 + settings.directions)

    def execute(self, settings: S, run: Run) -> Generator[Record, None, Row]:
        """Train to the checkpoint, and take every step from it."""
        name = {"label": run.label, "seed": run.seed, **run.options}
        model, batch, held_out = checkpoint(run.seed, **run.options)
        ratios = [10 ** (4 * place / (settings.points - 1) - 2) for place in range(settings.points)]
        generator, courses, onsets = torch.Generator().manual_seed(run.seed), list[Course](), list[float]()
        beside: dict[str, float] = {}
        for place in range(1 + settings.directions):
            step = random_direction(model, generator) if place else downhill(model, batch)
            one = course(model, step, batch, held_out, ratios)
            if not place:
                beside = self.beside(model, batch[0], {key: one.rate * part for key, part in step.items()}, run)
            record = {"kind": "course", **name, "direction": f"random {place}" if place else GRADIENT, "r": ratios}
            yield cast(Record, plain({**record, **beside, **asdict(one)}))
            courses.append(one)
            onsets.append(crossing(ratios, one.inflation, settings.inflation))
        inside = [kept for one in courses for r, kept in zip(ratios, one.kept, strict=True) if r <= 1.0]
        row = {
            **beside,
            "onset": onsets[0],
            "kept": min(inside),
            "collapse": crossing(ratios, [1.0 / max(kept, LEAST) for kept in courses[0].kept], 2.0),
            "length": onsets[0] * courses[0].length,
            "rate": onsets[0] * courses[0].rate,
            "onsets": onsets[1:],
            "lengths": [onset * one.length for onset, one in zip(onsets, courses, strict=True)][1:],
        }
        return cast(Row, plain({**name, **row}))

    def beside(self, model: nn.Module, inputs: Tensor, step: Displacement, run: Run) -> dict[str, float]:
        """Return what else a row has of the gradient's step of r = 1."""
        return {}

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
            figures[figure] = course_panels(
                panels, x=self.across, y=words, title=title, log=shown == "inflation", dotted=self.dotted
            )
        return figures


def _summary(label: str, rows: Sequence[Row]) -> Row:
    random, lengths = ([number(one) for row in rows for one in row[key]] for key in ("onsets", "lengths"))
    summary = {
        "label": label,
        "kept": min(number(row["kept"]) for row in rows),
        **medians(rows, "onset", "collapse"),
        "random": statistics.median(random) if random else None,
        "low": min(random, default=None),
        "high": max(random, default=None),
        "spread": log_spread(random),
        "spread_length": log_spread(lengths),
        "directions": len(random),
        "runs": len(rows),
    }
    return cast(Row, plain(summary))


def medians(rows: Iterable[Row], *keys: str) -> dict[str, float]:
    """Return what is in the middle of rows under some keys."""
    rows = list(rows)
    return {key: statistics.median(number(row[key]) for row in rows) for key in keys}


def log_spread(values: Iterable[float]) -> float:
    """Return the standard deviation (ddof 1) of log10 of what is finite; nan for fewer than two.

    Example:
        >>> round(log_spread([1.0, 10.0, 100.0, math.inf]), 12)
        1.0
    """
    logs = [math.log10(value) for value in values if math.isfinite(value)]
    return statistics.stdev(logs) if len(logs) > 1 else math.nan


COMPARED = (
    Column("label", "what"), Column("ours", "ours", "#.3g"), Column("paper", "paper", "#.3g"),
    Column("apart", "standard errors apart", ".1f", short="apart"),
    Column("error", "standard error", "#.3g", short="error"), Column("seeds", "seeds"),
)  # fmt: skip


def against(label: str, values: Sequence[float], paper: float) -> dict[str, Any]:
    """Return the mean over seeds, its standard error, and how many of these it lies above a number of the paper.

    Example:
        >>> against("spread", [1.0, 3.0], 4.0)
        {'label': 'spread', 'ours': 2.0, 'paper': 4.0, 'error': 1.0, 'apart': -2.0, 'seeds': 2}
    """
    mean = statistics.fmean(values) if values else None
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    apart = (mean - paper) / error if error and mean is not None else None
    return {"label": label, "ours": mean, "paper": paper, "error": error, "apart": apart, "seeds": len(values)}


def near(onsets: Iterable[float]) -> str:
    """Return how many onsets are within a factor of 2 of r = 1.

    Example:
        >>> near([0.4, 0.5, 1.0, math.inf])
        '2 of 4'
    """
    found = [0.5 <= onset <= 2.0 for onset in onsets]
    return f"{sum(found)} of {len(found)}"
