"""The page of a guard's log: report.html and its figures, in a folder beside the log."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safestep._torch.extras import need
from safestep._version import __version__
from safestep.errors import LogError, RunDirectoryError
from safestep.experiments.report.figures import FIGURES, save
from safestep.experiments.report.page import pictures_of, render, save_page
from safestep.experiments.report.tables import OutcomeTable
from safestep.logs import read
from safestep.logs.reader import standing
from safestep.looking.counting import farthest, statuses, stretches
from safestep.looking.events import events, gathered
from safestep.looking.findings import findings
from safestep.looking.meanings import meanings
from safestep.looking.words import STATUSES, STRETCHES, WORDS
from safestep.records.report import StepReport

_PICTURES = ("step_ratios", "status_shares", "effective_lrs", "step_lengths", "scales")
_DRAWN, _TOLD = 4_000, 20
"""Steps that figures show, and events that a page tells, at most."""


def report_log(path: Path) -> Path:
    """Draw the figures of a log, and write a page of it that needs no other file.

    Args:
        path: of JSON lines or CSV, as ``safestep.attach(..., log=path)`` writes it; a run may still be writing.

    Returns:
        The page: report.html in the folder LOG.report beside the log.

    Raises:
        LogError: if the file is not there, is no log, or holds no step.
        RunDirectoryError: if the folder cannot be written.
        MissingExtraError: if matplotlib or jinja2 is not installed.
    """
    if not path.exists():
        raise LogError(f"{path} does not exist: expected the log of a guard, or the directory of an experiment")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        written = read(path, superseded=True)
    reports = standing(written)
    if not reports:
        raise LogError(f"{path} holds no step yet: expected the log of a guard whose optimizer has stepped")
    directory = path.with_name(f"{path.name}.report")
    drawn = thinned(reports)
    gaps = [*(f"{warning.message}." for warning in told), *_holes(reports)]
    if len(drawn) < len(reports):
        gaps.append(f"Figures show {len(drawn)} of {len(reports)} records: of neighbours the one that goes farthest.")
    draw(drawn, directory, _PICTURES, path.name)
    content = _content(path, reports, gaps, directory) | {"superseded": len(written) - len(reports)}
    return save_page(render("log.html.jinja", content), directory)


def thinned(reports: Sequence[StepReport], most: int = _DRAWN) -> Sequence[StepReport]:
    """Return at most so many of the reports, and as they are if there are no more: of neighbours the farthest step.

    Example:
        >>> thinned([], most=2)
        []
    """
    size = -(-len(reports) // most)
    if size <= 1:
        return reports
    parts = [reports[begin : begin + size] for begin in range(0, len(reports), size)]
    return [farthest(part) or part[0] for part in parts]


def draw(shown: Any, directory: Path, names: Sequence[str], overview: str = "") -> None:
    """Draw figures of `safestep.plots` into a folder: what all of them show, and the title of an overview of it.

    Raises:
        RunDirectoryError: if the folder cannot be written.
    """
    matplotlib = need("matplotlib", "plots")
    from safestep import plots
    from safestep.plots.panel import panel, single_figure

    try:
        (directory / FIGURES).mkdir(parents=True, exist_ok=True)
        # The user's own matplotlib settings have no say in the files.
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            for name in names:
                figure = single_figure()
                getattr(plots, name)(shown, ax=panel(figure))
                save(figure, directory / FIGURES / f"{name}.png")
            if overview:
                save(plots.run_overview(shown, title=overview), directory / FIGURES / "overview.png")
    except OSError as error:
        raise RunDirectoryError(
            f"cannot write to {directory}: {error.strerror or error}; make room and try again"
        ) from error


def _content(path: Path, reports: Sequence[StepReport], gaps: list[str], directory: Path) -> dict[str, Any]:
    happened = gathered(events(reports))
    told = happened if len(happened) <= _TOLD else [*happened[: _TOLD // 2], *happened[-_TOLD // 2 :]]
    return {
        "results": {"experiment": path.name, "version": __version__},
        "log": path.name,
        "about": "",
        "words": WORDS,
        "gaps": gaps,
        "findings": findings(reports),
        "pictures": list(pictures_of(directory / FIGURES, _PICTURES)),
        "runs": OutcomeTable(STRETCHES, stretches(reports)),
        "summary": OutcomeTable(STATUSES, statuses(reports)),
        "meanings": meanings(reports),
        "events": told,
        "more": len(happened) - len(told),
        "first": reports[0].step,
        "last": reports[-1].step,
        "count": len(reports),
    }


def _holes(reports: Sequence[StepReport]) -> list[str]:
    """Say how many steps the log does not hold."""
    there = reports[-1].step + 1
    if len(reports) == there:
        return []
    return [
        f"Of {there} steps the log holds {len(reports)}: it was thinned out (log_every), begun late, or has lost lines."
    ]
