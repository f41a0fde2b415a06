"""What is missing of a run, in sentences: for the top of the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from safestep.errors import SafestepError
from safestep.experiments import NAMES, find
from safestep.experiments.report.pageparts import Picture
from safestep.experiments.runner.rundir import RECORDS, drawable_records

_Key = tuple[Any, Any]
"""Label and seed of a run."""
_PIECES = ("epoch", "first_step", "first_cell")
"""What tells the pieces of a run apart; a record has one of these."""
_TOLD = 5
"""So many damaged lines are told one by one."""
_DESCENT_PIECES = 2
"""Before the drift, and after it."""


def gaps(results: Mapping[str, Any], directory: Path, drawn: Sequence[Picture]) -> list[str]:
    """Return what is missing of a run, one sentence each; none for a whole one.

    Args:
        results: what results.json holds.
        directory: where records.jsonl is.
        drawn: the figures that the page will show.
    """
    records, faults = drawable_records(directory)
    rows = results["rows"]
    done = {(row["label"], row["seed"]) for row in rows}
    kept = _epochs(records)
    begun = kept.keys() - done
    planned, found = _planned(results)
    if not results.get("finished"):
        here = "1 row is" if len(rows) == 1 else f"{len(rows)} rows are"
        found.append(
            f"This run is not finished: {here} here so far. The command below, with `--out` and this directory, "
            "continues it."
        )
    else:
        over_seeds = {
            row["label"] for row in results.get("summary", []) if "seeds" in row
        }  # others are of no one label
        labels = {label for label, _ in (*done, *begun)} | over_seeds
        absent = (planned or {(label, seed) for label in labels for seed in results["seeds"]}) - done
        found += [f"Rows are missing: {_named(absent)}."] if absent else []
    if begun:
        found.append(f"Begun but not ended, so without a row: {_named(begun)}. Their epochs are in the pictures.")
    if faults:
        lines = "1 line" if len(faults) == 1 else f"{len(faults)} lines"
        found.append(
            f"Left out of {RECORDS}: {lines} cut short, as by a kill or a full disk, or not of a run "
            f"({'; '.join(faults[:_TOLD])}{', ...' if len(faults) > _TOLD else ''})."
        )
    if records and not drawn:
        found.append("The pictures are not drawn yet: `safestep report` draws them.")
    if rows and not records:
        found.append(f"There are no records ({RECORDS}), so no curves could be drawn.")
    elif rows:
        epochs = results["settings"].get("epochs")
        found += _lost(done, kept, epochs if isinstance(epochs, int) else 1)
        pieces = [(row["label"], row["seed"]) for row in rows if _broken(row, records)]
        found += [f"Some pieces are lost of: {_named(pieces)}; their curves have gaps."] if pieces else []
    return found


def _planned(results: Mapping[str, Any]) -> tuple[set[_Key], list[str]]:
    """Return every run that there should be, as far as this version knows, and what it does not know."""
    name = results["experiment"]
    if name not in NAMES:
        unknown = (
            f"This safestep knows no experiment `{name}` (there are: {', '.join(NAMES)}): whether runs are missing "
            "cannot be told, and only what is drawn of every experiment is drawn."
        )
        return set(), [unknown]
    experiment = find(name)
    kept = {key: tuple(value) if isinstance(value, list) else value for key, value in results["settings"].items()}
    try:
        runs = experiment.runs(experiment.settings(**kept), results["seeds"])
    except (SafestepError, TypeError, ValueError) as error:
        return set(), [
            f"The settings are not those of `{name}` in this safestep ({error}): missing runs are not looked for."
        ]
    absent = experiment.settings.types().keys() - kept.keys()
    return {run.key for run in runs}, (
        [f"Settings are missing, and taken to be the defaults: {', '.join(sorted(absent))}."] if absent else []
    )


def _broken(row: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether steps are missing between the pieces that are kept of a run, before or after them."""
    own = [r for r in records if (r["label"], r["seed"]) == (row["label"], row["seed"])]
    pieces = sorted(
        (r["first_step"], len(r["loss"])) for r in own if "first_step" in r and isinstance(r.get("loss"), list)
    )
    cells = [len(r["rates"]) for r in own if r.get("kind") == "map"]
    if cells:
        return isinstance(row.get("cells"), int) and sum(cells) < row["cells"]
    if any(r.get("kind") in {"course", "rates", "trace"} for r in own):
        return not {"course", "rates", "trace"} <= {r["kind"] for r in own}
    if not pieces:
        return False
    if any(start != before + length for (before, length), (start, _) in pairwise(pieces)) or pieces[0][0] != 0:
        return True
    if any(r.get("kind") == "descent" for r in own):
        return len(pieces) < _DESCENT_PIECES
    return isinstance(row.get("steps"), int) and sum(length for _, length in pieces) < row["steps"]


def _lost(done: Iterable[_Key], kept: Mapping[_Key, int], epochs: int) -> list[str]:
    """Return of which runs that have a row the records are gone, wholly or in part."""
    gone = [key for key in done if not kept.get(key)]
    some = {key: f" ({kept[key]} of {epochs} kept)" for key in done if 0 < kept.get(key, 0) < epochs}
    found = [f"No epochs are kept of: {_named(gone)}; their curves are missing."] if gone else []
    return [*found, f"Some epochs are lost of: {_named(some, some)}; their curves have gaps."] if some else found


def _epochs(records: Iterable[Mapping[str, Any]]) -> dict[_Key, int]:
    """Count the epochs that are kept of each run; a record of another kind shows that its run was begun."""
    epochs: dict[_Key, set[Any]] = {}
    for record in records:
        piece = next((record[key] for key in _PIECES if key in record), None)
        epochs.setdefault((record.get("label"), record.get("seed")), set()).add(piece)
    return {key: len(seen - {None}) for key, seen in epochs.items()}


def _named(runs: Iterable[_Key], notes: Mapping[_Key, str] | None = None) -> str:
    return "; ".join(sorted(f"{label}, seed {seed}{(notes or {}).get((label, seed), '')}" for label, seed in runs))
