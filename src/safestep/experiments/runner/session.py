"""One call of an experiment on a run directory: what is there already, what is missing, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safestep._version import __version__
from safestep.errors import RunDirectoryError
from safestep.experiments.runner.engine import execute
from safestep.experiments.runner.environment import environment
from safestep.experiments.runner.experiment import Experiment, Row, Run, key_of
from safestep.experiments.runner.on_dask import Engine
from safestep.experiments.runner.rundir import RunDirectory, read_records, read_results, readable
from safestep.experiments.runner.settings import Settings, assignment
from safestep.records.report import plain


class Session:
    """Carries out the runs that a directory lacks.

    Args:
        directory: entered, so that nobody else writes to it.
        experiment: what to run.
        settings: of every run.
        seeds: of the runs asked for; the directory may hold others besides.

    Raises:
        RunDirectoryError: if the directory holds finished runs of another experiment or of other settings. It was
            not touched then.

    Attributes:
        experiment: as given.
        settings: as given.
        results: what results.json holds, or will.
        missing: the runs asked for that are not there.
        note: what was found, for the user; empty if the directory is new.
    """

    def __init__(
        self, directory: RunDirectory, experiment: Experiment[Any], settings: Settings, seeds: Sequence[int]
    ) -> None:
        self._directory, self.experiment, self.settings = directory, experiment, settings
        new: dict[str, Any] = {
            "experiment": experiment.name,
            "version": __version__,
            "settings": settings.as_record(),
            "seeds": [],
            "environment": {},
            "started": None,
            "finished": None,
            "rows": [],
            "summary": [],
        }
        there = read_results(directory.path)
        another = there is not None and any(there[key] != new[key] for key in ("experiment", "settings"))
        if there is not None and another and there["rows"]:
            raise RunDirectoryError(_another(there, new, directory.path))
        self.results = new if there is None or another else there
        self.results["seeds"] = list(dict.fromkeys([*self.results["seeds"], *seeds]))
        self._order = {run.key: place for place, run in enumerate(experiment.runs(settings, self.results["seeds"]))}
        self._done = {key_of(row) for row in self.results["rows"]}
        asked = experiment.runs(settings, seeds)
        self.missing: list[Run] = [run for run in asked if run.key not in self._done]
        self.note = "" if there is None else self._found(len(asked))
        if another:
            self.note = "no run of another setting that was begun here was ever finished: starting anew"

    def run(self, jobs: int | None, engine: Engine | None = None) -> Iterator[Row]:
        """Drop the records of unfinished runs at once, then carry out the missing runs as the rows are asked for.

        Args:
            jobs: runs at a time; None leaves it to the engine.
            engine: carries them out on other machines; None is this one.

        Returns:
            The new rows, each handed out once it is kept, in the order in which the runs finish.

        Raises:
            RunDirectoryError: if a file cannot be written; all that was kept before stays.
        """
        if not self.missing:
            if self.results.get("finished") is None:  # killed after the last run, before the last word
                self._finish(lost=0)
            return iter(())
        kept = self._keep_finished_records()
        lost = self.results.get("records", kept) - kept
        self._sign()
        self._directory.save(self.results)
        return self._carry_out(jobs, engine, lost)

    def _carry_out(self, jobs: int | None, engine: Engine | None, lost: int) -> Iterator[Row]:
        path = self._directory.path
        for row in execute(self.experiment, self.settings, self.missing, path, jobs, engine):
            self._done.add(key_of(row))
            rows = sorted([*self.results["rows"], plain(row)], key=self._place)
            with readable(path, "the summary"):
                self.results |= {"rows": rows, "summary": self.experiment.summarise(rows)}
            self._directory.save(self.results)
            yield row
        self._finish(lost)

    def _finish(self, lost: int) -> None:
        """Note the end, and how many records there are or should be, so that it is seen later if some are gone."""
        kept = self._keep_finished_records()  # in the order of the table, whichever run was faster
        self.results["records"] = kept + lost
        if self._done >= self._order.keys():
            self.results["finished"] = _now()
        self._directory.save(self.results)

    def _found(self, asked: int) -> str:
        if not self.missing:
            return f"all {asked} runs are there already"
        records, faults = read_records(self._directory.path)
        there = f"continuing with {len(self.missing)} of {asked} runs"
        unfinished = sum(key_of(record) not in self._done for record in records)
        if not unfinished and not faults:
            return there
        return (
            f"a killed run left {len(records)} whole lines{f' and {len(faults)} cut short' if faults else ''}; "
            f"{unfinished} lines of unfinished runs are dropped; {there}"
        )

    def _keep_finished_records(self) -> int:
        records, _ = read_records(self._directory.path)
        finished = sorted((record for record in records if key_of(record) in self._done), key=self._place)
        self._directory.keep(finished)
        return len(finished)

    def _place(self, row: Mapping[str, Any]) -> int:
        return self._order.get(key_of(row), len(self._order))

    def _sign(self) -> None:
        """Note where and when this call runs; a directory may be continued elsewhere."""
        here = {"version": __version__, "environment": environment()}
        if not self.results["rows"]:
            self.results |= {**here, "started": _now()}
        elif here != {key: self.results.get(key) for key in here}:
            self.results["continued"] = [*self.results.get("continued", []), {**here, "started": _now()}]
        self.results["finished"] = None


def _another(there: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> str:
    """Return in which experiment or settings a directory differs from what was asked for, and what to do."""
    elsewhere = "or choose another directory with --out"
    if there["experiment"] != new["experiment"]:
        return (
            f"{path} holds {there['experiment']}, not {new['experiment']}: continue it with `safestep run "
            f"{there['experiment']}`, {elsewhere}"
        )
    kept, asked = there["settings"], new["settings"]
    differ = [key for key in {**kept, **asked} if kept.get(key) != asked.get(key)]
    theirs, ours = (", ".join(assignment(key, one.get(key, "(none)")) for key in differ) for one in (kept, asked))
    again = " ".join(f"--set {assignment(key, kept[key])}" for key in differ if key in kept)
    return (
        f"{path} holds {new['experiment']} with other settings: {theirs} there, {ours} asked for. "
        f"Continue it with {again}, {elsewhere}"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
