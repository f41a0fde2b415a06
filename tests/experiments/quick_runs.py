"""The quick form of a study, run whole: its rows, its records and its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safestep.experiments import find
from safestep.experiments.report.figures import draw
from safestep.experiments.report.page import write_page
from safestep.experiments.runner.rundir import RunDirectory, read_records, read_results
from safestep.experiments.runner.session import Session


@dataclass(frozen=True)
class QuickRun:
    """What a run of seed 7 left."""

    experiment: Any
    settings: Any
    results: dict[str, Any]
    records: list[dict[str, Any]]
    page: str

    @property
    def planned(self) -> int:
        """How many runs there had to be."""
        return len(self.experiment.runs(self.settings, [7]))


def quick_run(study: str, path: Path) -> QuickRun:
    """Run a study into a folder, draw it and write its page."""
    experiment = find(study)
    settings = experiment.settings.parse(quick=True)
    with RunDirectory(path) as directory:
        list(Session(directory, experiment, settings, [7]).run(jobs=1))
    draw(path)
    page = write_page(path).read_text(encoding="utf-8")
    return QuickRun(experiment, settings, read_results(path), read_records(path)[0], page)
