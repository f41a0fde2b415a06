"""What an experiment is: a plan of runs, how one run is executed, and what tables and page show of the outcome."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from safestep.experiments.runner.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

S = TypeVar("S", bound=Settings)

Record = Mapping[str, Any]
"""A line of records.jsonl: its ``kind``, the ``label`` and ``seed`` of its run, and numbers."""
Row = Mapping[str, Any]
"""The outcome of one run, or a summary over seeds, in results.json: a ``label`` and numbers; a run's has a ``seed``."""


@dataclass(frozen=True)
class Run:
    """One run of an experiment.

    Attributes:
        label: what is run, in the words of tables and pictures.
        seed: of every generator.
        options: what else the experiment has to know to execute it.
    """

    label: str
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int]:
        """What tells this run from every other of its experiment."""
        return self.label, self.seed


def key_of(row: Row | Record) -> tuple[str, int]:
    """Return the `Run.key` of the run that a row or record is of."""
    return row["label"], row["seed"]


def seeds_of(rows: Iterable[Row]) -> list[int]:
    """Return every seed of some rows once, in order of first appearance."""
    return list(dict.fromkeys(row["seed"] for row in rows))


def grouped(rows: Iterable[Row], key: str = "label") -> list[list[Row]]:
    """Return rows in groups that have the same value of a key, in order of first appearance."""
    groups: dict[object, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return list(groups.values())


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: of a row.
        heading: above it.
        form: format specification for its numbers; huge and tiny ones turn scientific.
        short: the heading where room is scarce, as on a terminal; empty if that is short enough.
    """

    key: str
    heading: str
    form: str = ""
    short: str = ""


@dataclass(frozen=True)
class Words:
    """What the page of an experiment says, in HTML; nothing of it is computed.

    Attributes:
        question: what is asked, and why, for someone who never heard of safestep: one paragraph.
        setup: what is run.
        captions: what a figure shows and how it is read, by the name of the figure.
        reading: what the columns of the table mean.
    """

    question: str
    setup: str = ""
    captions: Mapping[str, str] = field(default_factory=dict)
    reading: str = ""


@dataclass(frozen=True, kw_only=True)
class Experiment(ABC, Generic[S]):
    """A question, the runs that answer it, and the columns that tell the answer.

    Attributes:
        name: as on the command line: ``digits-sgd``.
        about: what it shows, in one line.
        settings: class of its settings.
        columns: of the table of rows, for one seed; a phone shows the first four, the label among them.
        summary_columns: of the table of summaries, for several.
        own_figures: names of the figures that only it has, in the order of the page, which opens with the first.
        words: what its page says beside figures and tables.
        summary_always: whether the summaries are the table for one seed too: they tell more than seeds apart.
    """

    name: str
    about: str
    settings: type[S]
    columns: tuple[Column, ...]
    summary_columns: tuple[Column, ...]
    summary_always: bool = False
    own_figures: ClassVar[tuple[str, ...]] = ()
    words: ClassVar[Words | None] = None

    @abstractmethod
    def runs(self, settings: S, seeds: Sequence[int]) -> list[Run]:
        """Return every run, in the order of the table."""

    @abstractmethod
    def seconds_per_run(self, settings: S) -> float:
        """Return about how long one run takes on one core, to judge whether more processes pay."""

    @abstractmethod
    def execute(self, settings: S, run: Run) -> Generator[Record, None, Row]:
        """Carry out one run: yield its records as they come, return its row.

        Nothing but the settings and the run may bear on the outcome: runs are executed in any order, each in any
        process.
        """

    @abstractmethod
    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return one summary over the seeds for every label, in the order of the rows, or what else they come to."""

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return what came out, in at most three sentences that stand beside the first figure; none by default.

        Args:
            results: what results.json holds, with at least one row; runs may be missing.
        """
        return []

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return figures of its own, by name, beside those that every training run has; none by default.

        Args:
            results: what results.json holds.
            records: of records.jsonl.
        """
        return {}
