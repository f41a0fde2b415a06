"""The page of a post-mortem: report.html, its figures, and results.json in one folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safestep._torch.extras import need
from safestep._version import __version__
from safestep.errors import RunDirectoryError
from safestep.experiments.report.figures import FIGURES, save
from safestep.experiments.report.page import pictures_of, render, save_page
from safestep.experiments.report.tables import OutcomeTable
from safestep.experiments.runner.experiment import Column, Words
from safestep.tools.autopsy import Autopsy, Cause

_TOLD = 12
"""Samples that the table has, the farthest."""
MEANINGS = {
    Cause.NONE: "this step explains no spike",
    Cause.LENGTH: "the step is too long as a whole",
    Cause.BATCH: "its batch, or some samples of it, carry it",
    Cause.LAYER: "one layer carries it",
}
WORDS = Words(
    question="""<p>The step was taken again from its checkpoint and measured as the <b>step ratio</b> <var>r</var>: at
<var>r</var> = 1 it ends where the local picture of the loss does. Then each suspect was left out and the step taken
once more. A cause is what makes <var>r</var> at least five times smaller, a layer's part of the step
fifteen times.</p>""",
    captions={
        "loss_along_step": "The loss with the parameters at <var>t</var> times the step; 1 is the step itself. "
        "The band begins at the boundary, <var>r</var> = 1.",
        "layer_ratios": "<var>r</var> of each layer's part of the step, and of the rest of it.",
        "sample_ratios": "<var>r</var> of each sample of the batch; of a loss without a softmax, the change.",
    },
    reading="""<p>Largest, mean: of the spread of the logits over the samples; exact: by the nearest complex zero;
curvature: by the quadratic model of the loss on this batch, infinite where the step goes uphill. Inside: the part of
the step that would have had <var>r</var> = 1. Gain: what a layer's weights multiply inputs of size 1 by.</p>""",
)
_INSTEAD = (Column("label", "the same step"), Column("ratio", "r", ".3g"), Column("times", "r is smaller by", ".3g"))
_RATIOS = (Column("label", "measured by"), Column("ratio", "r", ".3g"), Column("inside", "inside", ".3g"))
_LAYERS = (
    Column("label", "layer"),
    Column("alone", "r of its part alone", ".3g"),
    Column("without", "r without its part", ".3g"),
    Column("length", "‖p‖", ".3g"),
    Column("size", "‖θ‖", ".3g"),
    Column("gain", "gain", ".3g"),
)
_SAMPLES = (Column("label", "sample"), Column("ratio", "r", ".3g"), Column("place", "position"))


def write_autopsy(found: Autopsy, directory: Path, name: str) -> Path:
    """Write results.json, the figures and the page of a post-mortem into a folder, and return the page.

    Args:
        found: what `safestep.tools.autopsy.autopsy` returned.
        directory: made if it is missing; an earlier post-mortem in it gives way.
        name: of what was examined, for the title.

    Raises:
        RunDirectoryError: if nothing can be written there.
        MissingExtraError: if matplotlib or jinja2 is not installed.
    """
    matplotlib = need("matplotlib", "plots")
    from safestep import plots
    from safestep.plots.panel import panel, single_figure

    pictures = (plots.loss_along_step, plots.layer_ratios, plots.sample_ratios)
    try:
        (directory / FIGURES).mkdir(parents=True, exist_ok=True)
        record = {"autopsy": name, "version": __version__, **found.as_record()}
        text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
        (directory / "results.json").write_text(text + "\n", encoding="utf-8")
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            for picture in pictures:
                figure = single_figure()
                picture(found, ax=panel(figure))
                save(figure, directory / FIGURES / f"{picture.__name__}.png")
    except OSError as error:
        raise RunDirectoryError(
            f"cannot write to {directory}: {error.strerror or error}; choose another directory with --out"
        ) from error
    content = {
        "results": {"experiment": f"Post-mortem of {name}", "version": __version__},
        "cause": found.cause,
        "meaning": MEANINGS[found.cause],
        "about": "",
        "words": WORDS,
        "gaps": [],
        "findings": found.findings,
        "pictures": list(pictures_of(directory / FIGURES, [picture.__name__ for picture in pictures])),
        "runs": OutcomeTable((), ()),
        "tables": _tables(found),
        "notes": found.notes,
    }
    return save_page(render("autopsy.html.jinja", content), directory)


def _tables(found: Autopsy) -> dict[str, OutcomeTable]:
    instead = [
        {"label": one.words, "ratio": one.ratio, "times": found.ratio / one.ratio if one.ratio else None}
        for one in found.instead
    ]
    ratios = [{"label": k, "ratio": r, "inside": 1.0 / r if r else None} for k, r in found.ratios.items()]
    layers = [{"label": one.name, **{c.key: getattr(one, c.key) for c in _LAYERS[1:]}} for one in found.layers]
    samples: list[dict[str, Any]] = [
        {"label": str(one.index), "ratio": one.ratio, "place": ", ".join(map(str, one.place)) or None}
        for one in found.samples[:_TOLD]
    ]
    return {
        "Steps taken in its place": OutcomeTable(_INSTEAD, instead),
        "How far the step goes": OutcomeTable(_RATIOS, ratios),
        "Layers": OutcomeTable(_LAYERS, layers),
        "The samples that are moved farthest": OutcomeTable(_SAMPLES, samples),
    }
