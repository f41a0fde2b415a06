"""Write report.html: what a run directory holds, explained to someone who never heard of a radius, in one file."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from safestep._torch.extras import need
from safestep.errors import RunDirectoryError
from safestep.experiments import known
from safestep.experiments.report.figures import FIGURES, shown
from safestep.experiments.report.gaps import gaps
from safestep.experiments.report.tables import run_table, summary_table
from safestep.experiments.runner.experiment import Experiment, Words, seeds_of
from safestep.experiments.runner.rundir import readable, require_results
from safestep.experiments.runner.seed_ranges import written_seeds
from safestep.experiments.runner.settings import assignment

PAGE = "report.html"
_TEMPLATES = ("experiments.report", "looking")
_WIDE = 6.0
"""Inches from which a figure has several columns: it takes all the width, and scrolls where that is too little."""
_DPI = 220
_FINDINGS = 3
"""Sentences beside the first picture, at most: who reads more reads the table."""
_NO_FINDINGS = "What came out is not put in words: numbers of the rows are missing or damaged."


def write_page(directory: Path) -> Path:
    """Write report.html from results.json, records.jsonl and the figures of a run directory.

    The page, whose path is returned, needs no other file and no network. Its words are those of the experiment.

    Raises:
        RunDirectoryError: if there is no run in the directory, or the page cannot be written.
        MissingExtraError: if jinja2 or matplotlib is not installed.
    """
    results = require_results(directory)
    with readable(directory, PAGE):
        text = render("report.html.jinja", _content(results, directory))
    return save_page(text, directory)


def render(template: str, content: Mapping[str, Any]) -> str:
    """Return a page, from one of the templates of this folder or of ``safestep.looking``.

    Raises:
        MissingExtraError: if jinja2 is not installed.
    """
    jinja2 = need("jinja2", "experiments")
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(f"safestep.{room}", ".") for room in _TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text: str = environment.get_template(template).render(content)
    return text


def save_page(text: str, directory: Path) -> Path:
    """Put a page into a directory, in the place of the one before, and return where it is.

    Raises:
        RunDirectoryError: if it cannot be written.
    """
    page, new = directory / PAGE, directory / f".{PAGE}.new"
    try:
        new.write_text(text, encoding="utf-8")
        return new.replace(page)
    except OSError as error:
        raise RunDirectoryError(
            f"cannot write to {page}: {error.strerror or error}; make room, then `safestep report {directory}`"
        ) from error


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it: the bytes as a data URI, its size in pixels, and what it shows in words."""

    name: str
    source: str
    title: str
    description: str
    width: int
    height: int
    wide: bool


def _content(results: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    experiment = known(results["experiment"])
    pictures = list(pictures_of(directory / FIGURES, shown(results)))
    findings, missing = _findings(experiment, results, directory), gaps(results, directory, drawn=bool(pictures))
    return {
        "results": results,
        "about": experiment.about if experiment else "",
        "words": (experiment and experiment.words) or Words(""),
        "seeds": written_seeds(seeds_of(results["rows"])).replace(",", ", "),
        "begun": _moment(results.get("started")),
        "took": _duration(results.get("started"), results.get("finished")),
        "gaps": [*missing, *([] if findings is not None else [_NO_FINDINGS])],
        "pictures": pictures,
        "findings": findings or [],
        "runs": run_table(experiment, results),
        "summary": summary_table(experiment, results),
        "settings": {key: assignment(key, value).partition("=")[2] for key, value in results["settings"].items()},
        "machines": [
            {"safestep": one["version"], **one["environment"]} for one in (results, *results.get("continued", []))
        ],
        "command": _command(results, experiment),
    }


def _findings(experiment: Experiment[Any] | None, results: Mapping[str, Any], directory: Path) -> list[str] | None:
    """Return the sentences beside the first picture; None where the rows lack what they are made of."""
    if experiment is None or not results["rows"]:
        return []
    try:
        with readable(directory, "what came out"):
            return experiment.findings(results)[:_FINDINGS]
    except RunDirectoryError:
        return None


def pictures_of(folder: Path, names: Iterable[str]) -> Iterator[Picture]:
    """Yield the figures of these names, in this order; other files in the folder are not looked at."""
    image = need("PIL.Image", "plots")
    for file in (folder / f"{name}.png" for name in names):
        if file.is_file():
            with image.open(file) as opened:
                texts, (width, height), (dots, _) = opened.text, opened.size, opened.info.get("dpi", (_DPI, _DPI))
            source = f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"
            title, description = texts.get("Title", file.stem), texts.get("Description", "")
            yield Picture(file.stem, source, title, description, width, height, width > _WIDE * dots)


def _moment(text: str | None) -> str:
    return f"{datetime.fromisoformat(text):%d %B %Y, %H:%M} UTC" if text else ""


def _duration(started: str | None, finished: str | None) -> str:
    if not started or not finished:
        return ""
    return str(datetime.fromisoformat(finished) - datetime.fromisoformat(started))


def _command(results: Mapping[str, Any], experiment: Experiment[Any] | None) -> str:
    """Return the command that does the same again: the settings that are not the defaults, spelled out.

    Settings of another version, which this one would refuse, are left out.
    """
    defaults = experiment.settings().as_record() if experiment else {}
    words = ["safestep", "run", str(results["experiment"])]
    if results["seeds"]:
        words += ["--seeds", written_seeds(results["seeds"])]
    for key, value in results["settings"].items():
        if experiment is None or (key in defaults and defaults[key] != value):
            words += ["--set", assignment(key, value)]
    return shlex.join(words)
