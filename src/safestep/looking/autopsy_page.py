"""The page of a post-mortem: report.html, its figure, and results.json in one folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from safestep._version import __version__
from safestep.errors import RunDirectoryError
from safestep.experiments.report.figures import FIGURES
from safestep.experiments.report.page import pictures_of, render, save_page
from safestep.experiments.report.tables import OutcomeTable
from safestep.experiments.runner.experiment import Column, Words
from safestep.looking.log_page import draw
from safestep.tools.autopsy import Autopsy

_TOLD, _PICTURES = 12, ("loss_along_step",)
"""Layers and samples that a table has, those that go farthest; and the figures."""
_WORDS = Words(
    question="""<p>The step was taken again from its checkpoint and measured as the <b>step ratio</b> <var>r</var>: at
<var>r</var> = 1 it ends where the local picture of the loss does. Then each suspect was left out and the step taken
once more. A cause is what makes <var>r</var> at least five times smaller, a layer's part of the step
fifteen times.</p>""",
    captions={
        "loss_along_step": "The loss with the parameters at <var>t</var> times the step; 1 is the step itself. "
        "The band begins at the boundary, <var>r</var> = 1."
    },
    reading="""<p>Largest, mean: of the spread of the logits over the samples; exact: by the nearest complex zero;
curvature: by the quadratic model of the loss on this batch, infinite where the step goes uphill. Inside: the part of
the step that would have had <var>r</var> = 1.</p>""",
)
_R = Column("ratio", "r", ".3g")
_INSTEAD = (Column("words", "the same step"), _R, Column("times", "r is smaller by", ".3g"))
_RATIOS = (Column("words", "measured by"), _R, Column("inside", "inside", ".3g"))
_ALONE, _REST = Column("alone", "r of its part alone", ".3g"), Column("without", "r without its part", ".3g")
_LAYERS = (Column("name", "layer"), _ALONE, _REST, Column("length", "‖p‖", ".3g"))
_SAMPLES = (Column("words", "sample"), _R)


def write_autopsy(found: Autopsy, directory: Path, name: str) -> Path:
    """Write results.json, the figure and the page of a post-mortem into a folder, and return the page.

    The folder is made if it is missing; an earlier post-mortem in it gives way. The name is that of the checkpoint.

    Raises:
        RunDirectoryError: if nothing can be written there.
        MissingExtraError: if matplotlib or jinja2 is not installed.
    """
    draw(found, directory, _PICTURES)
    record = {"autopsy": name, "version": __version__, **found.as_record()}
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
    try:
        (directory / "results.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise RunDirectoryError(f"cannot write to {directory}: {error.strerror or error}; make room") from error
    content = {
        "results": {"experiment": f"Post-mortem of {name}", "version": __version__},
        "about": "",
        "words": _WORDS,
        "gaps": [],
        "found": found,
        "findings": found.findings,
        "pictures": list(pictures_of(directory / FIGURES, _PICTURES)),
        "runs": OutcomeTable((), ()),
        "tables": _tables(found),
    }
    return save_page(render("autopsy.html.jinja", content), directory)


def _tables(found: Autopsy) -> dict[str, OutcomeTable]:
    instead = [{**asdict(one), "times": found.ratio / one.ratio if one.ratio else None} for one in found.instead]
    ratios = [{"words": by, "ratio": r, "inside": 1.0 / r if r else None} for by, r in found.ratios.items()]
    layers = sorted(map(asdict, found.layers), key=lambda layer: -layer["alone"])[:_TOLD]
    samples = [{"words": one.name, "ratio": one.ratio} for one in found.samples[:_TOLD]]
    return {
        "Steps taken in its place": OutcomeTable(_INSTEAD, instead),
        "How far the step goes": OutcomeTable(_RATIOS, ratios),
        "The layers whose part goes farthest": OutcomeTable(_LAYERS, layers),
        "The samples that are moved farthest": OutcomeTable(_SAMPLES, samples),
    }
