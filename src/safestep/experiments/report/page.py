"""Write report.html: what a run directory holds, explained to someone who never heard of a radius, in one file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safestep._torch.extras import need
from safestep.errors import RunDirectoryError, UnknownNameError
from safestep.experiments import find
from safestep.experiments.report.figures import FIGURES, shown
from safestep.experiments.report.findings import findings
from safestep.experiments.report.gaps import gaps
from safestep.experiments.report.pageparts import duration, moment, pictures, table
from safestep.experiments.runner.experiment import Column, Experiment, columns_of, seeds_of
from safestep.experiments.runner.rundir import readable, require_results
from safestep.experiments.runner.seeds import written_seeds
from safestep.experiments.runner.settings import assignment
from safestep.records.report import number

PAGE = "report.html"


def write_page(directory: Path) -> Path:
    """Write report.html from results.json, records.jsonl and the figures of a run directory.

    The page needs no other file and no network. What it says of the outcome is computed from the rows. The words
    that explain come from the template ``report-NAME.html.jinja`` of the experiment, or of the beginning of its name
    (``report-digits`` for ``digits-sgd``), or from ``report.html.jinja``, which those extend.

    Args:
        directory: a run directory, finished or not.

    Returns:
        The page.

    Raises:
        RunDirectoryError: if there is no run in the directory, or the page cannot be written.
        MissingExtraError: if jinja2 or matplotlib is not installed.
    """
    results = require_results(directory)
    jinja2 = need("jinja2", "experiments")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("safestep.experiments.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.select_template(templates(str(results["experiment"])))
    with readable(directory, PAGE):
        text = template.render(_content(results, directory))
    page, new = directory / PAGE, directory / f".{PAGE}.new"
    try:
        new.write_text(text, encoding="utf-8")
        return new.replace(page)
    except OSError as error:
        raise RunDirectoryError(
            f"cannot write to {page}: {error.strerror or error}; make room, then `safestep report {directory}`"
        ) from error


def templates(name: str) -> list[str]:
    """Return the templates that may make the page of an experiment, the most special first.

    Example:
        >>> templates("digits-sgd")
        ['report-digits-sgd.html.jinja', 'report-digits.html.jinja', 'report.html.jinja']
    """
    parts = name.split("-")
    return [*(f"report-{'-'.join(parts[:n])}.html.jinja" for n in range(len(parts), 0, -1)), "report.html.jinja"]


def _content(results: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    try:
        experiment: Experiment[Any] | None = find(results["experiment"])
    except UnknownNameError:  # of another version of safestep: the records still tell what they hold
        experiment = None
    rows, summary = results["rows"], results.get("summary", [])
    seeds = seeds_of(rows)
    columns = experiment.columns if experiment else columns_of(rows)
    if len(seeds) > 1:
        columns = (*columns[:1], Column("seed", "seed"), *columns[1:])
    over_seeds = experiment.summary_columns if experiment else columns_of(summary)
    summarised = bool(summary) and (len(seeds) > 1 or (experiment is not None and experiment.summary_always))
    drawn = pictures(directory / FIGURES, shown(results))
    return {
        "name": results["experiment"],
        "about": experiment.about if experiment else "",
        "results": results,
        "settings": results["settings"],
        "seeds": seeds,
        "seeds_written": written_seeds(seeds).replace(",", ", "),
        "gaps": gaps(results, directory, drawn),
        "findings": (experiment.findings if experiment else findings)(rows, number(results["settings"].get("target"))),
        "pictures": drawn,
        "rows": table(columns, rows),
        "summary": table(over_seeds, summary) if summarised else None,
        "written": assignment,
        "begun": moment(results.get("started")),
        "took": duration(results.get("started"), results.get("finished")),
        "command": _command(results, experiment),
    }


def _command(results: Mapping[str, Any], experiment: Experiment[Any] | None) -> str:
    """Return the command that does the same again: the settings that are not the defaults, spelled out."""
    usual = experiment.settings().as_record() if experiment else {}
    words = ["safestep", "run", str(results["experiment"])]
    if results["seeds"]:
        words += ["--seeds", written_seeds(results["seeds"])]
    for key, value in results["settings"].items():
        if key not in usual or usual[key] != value:
            words += ["--set", assignment(key, value)]
    return shlex.join(words)
