"""What is missing of a run, in sentences: for the top of the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safestep.errors import SafestepError
from safestep.experiments import known
from safestep.experiments.runner.experiment import key_of
from safestep.experiments.runner.rundir import RECORDS, read_records

_SHOWN = 5
"""So many damaged lines, and missing runs, are named one by one."""


def gaps(results: Mapping[str, Any], directory: Path, *, drawn: bool) -> list[str]:
    """Return what is missing of a run, one sentence each; ``drawn`` says whether the page will show any figure."""
    rows = results["rows"]
    records, faults = read_records(directory)
    done, recorded = {key_of(row) for row in rows}, {key_of(record) for record in records}
    sentences = []
    if known(results["experiment"]) is None:
        sentences.append(f"This safestep knows no experiment {results['experiment']}: its own figures are not drawn.")
    if not results.get("finished"):
        sentences.append(
            f"This run is not finished: rows so far: {len(rows)}. The command below, with --out and this directory, "
            "continues it."
        )
    elif absent := _planned(results, done | recorded) - done:
        sentences.append(f"Rows are missing: {_named(absent)}.")
    if begun := recorded - done:
        sentences.append(f"Begun but not ended, so without a row: {_named(begun)}.")
    if faults:
        sentences.append(
            f"Lines of {RECORDS} that are cut short, or no records of a run, and left out: {len(faults)} "
            f"({_listed(faults)})."
        )
    if gone := done - recorded:
        sentences.append(f"No records are kept of: {_named(gone)}. Their curves are missing.")
    if (lost := results.get("records", 0) - len(records)) > 0:
        sentences.append(f"Records are lost: {lost} of {results['records']}. Curves have gaps.")
    if records and not drawn:
        sentences.append("The figures are not drawn yet: safestep report draws them.")
    return sentences


def _planned(results: Mapping[str, Any], seen: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
    """Return every run that there should be; of an experiment of another version, every label with every seed."""
    experiment = known(results["experiment"])
    if experiment is not None:
        with suppress(SafestepError, TypeError, ValueError):  # settings of another version
            settings = experiment.settings.of_record(results["settings"])
            return {run.key for run in experiment.runs(settings, results["seeds"])}
    return {(label, seed) for label, _ in seen for seed in results["seeds"]}


def _named(runs: Iterable[tuple[str, int]]) -> str:
    return _listed(sorted(f"{label}, seed {seed}" for label, seed in runs))


def _listed(items: list[str]) -> str:
    more = f"; and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return "; ".join(items[:_SHOWN]) + more
