"""Draw the figures of a run directory again, from its records alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safestep._torch.extras import need
from safestep.errors import RunDirectoryError
from safestep.experiments import known
from safestep.experiments.runner.rundir import read_records, readable, require_results
from safestep.records.report import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = "figures"
_OF_ALL = ("test_accuracy", "training_loss", "effective_lr", "largest_ratio", "accuracy_over_seeds")
"""Figures that no experiment has for itself: they are drawn wherever the records hold what they show."""


def shown(results: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the figures of a page, in its order: the first one opens the page.

    Args:
        results: what results.json holds.
    """
    experiment = known(str(results["experiment"]))
    return (*_OF_ALL, *(experiment.own_figures if experiment else ()))


def draw(directory: Path) -> list[Path]:
    """Draw what the records of a run directory show, as PNG files in its ``figures``.

    The same records give the same bytes. Each file carries as the PNG texts "Title" and "Description" what it shows.
    What the records do not hold is not drawn, and a figure of it that was drawn before is removed; files
    of other names are left alone.

    Args:
        directory: a run directory, finished or not.

    Returns:
        The files, in the order in which a page shows them.

    Raises:
        RunDirectoryError: if there is no run in the directory, or the figures cannot be written.
        MissingExtraError: if matplotlib is not installed.
    """
    results = require_results(directory)
    matplotlib = need("matplotlib", "plots")
    records, _ = read_records(directory)
    folder = directory / FIGURES
    # The user's own matplotlib settings have no say in the files.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        with readable(directory, "the figures"):
            figures = _figures(results, records)
        try:
            folder.mkdir(exist_ok=True)
            for name in (*shown(results), "overview"):  # which repeats the others, for other places than the page
                if name not in figures:
                    (folder / f"{name}.png").unlink(missing_ok=True)
            return [save(figure, folder / f"{name}.png") for name, figure in figures.items()]
        except OSError as error:
            raise RunDirectoryError(
                f"cannot write to {folder}: {error.strerror or error}; make room, then `safestep report {directory}`"
            ) from error


def _figures(results: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    from safestep import plots
    from safestep.plots.panel import panel, single_figure

    curves = plots.curves_of(records)
    target = number(results["settings"].get("target"))
    target = 1.0 if math.isnan(target) else target
    pictures: dict[str, tuple[str, Callable[..., Any]]] = {
        "test_accuracy": ("test_acc", plots.test_accuracy),
        "training_loss": ("train_loss", plots.training_loss),
        "effective_lr": ("mean_lr", plots.effective_lr),
        "largest_ratio": ("max_r", lambda curves, ax: plots.largest_ratio(curves, target=target, ax=ax)),
    }
    figures: dict[str, Figure] = {}
    for name, (column, draw_picture) in pictures.items():
        if any(column in curve.columns for curve in curves):
            figures[name] = single_figure()
            draw_picture(curves, ax=panel(figures[name]))
    rows = [row for row in results["rows"] if {"final_acc", "policy", "diverged"} <= row.keys()]
    if len({row["seed"] for row in rows}) > 1:
        figures["accuracy_over_seeds"] = single_figure()
        plots.accuracy_over_seeds(rows, ax=panel(figures["accuracy_over_seeds"]))
    if experiment := known(str(results["experiment"])):
        figures |= experiment.figures(results, records)
    if pictures.keys() <= figures.keys():
        figures["overview"] = plots.overview(curves, target=target, title=str(results["experiment"]))
    return figures


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, with what it shows in words, and return the path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    # 256 colours are more than lines and letters need, and a third of the bytes.
    image = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB").quantize(256)
    words = PngInfo()
    for key, text in _words(figure).items():
        words.add_itxt(key, " ".join(text.split()))
    new = path.with_name(f".{path.name}.new")
    image.save(new, format="png", pnginfo=words, dpi=(figure.dpi, figure.dpi))
    return new.replace(path)


def _words(figure: Figure) -> dict[str, str]:
    """Return what a figure shows, for those who cannot see it: its title, what is drawn against what, and for whom."""
    from safestep.plots.style import LEAVES

    titles = [figure.get_suptitle(), *(ax.get_title(loc="left") for ax in figure.axes)]
    title, *others = filter(None, titles)
    named = [(ax.get_ylabel(), ax.get_xlabel()) for ax in figure.axes]
    whole = [pair for pair in named if all(pair)] or named  # of panels in a row each has one of two
    axes = dict.fromkeys(" against ".join(filter(None, pair)) for pair in whole)
    labels = dict.fromkeys(label for ax in figure.axes for label in ax.get_legend_handles_labels()[1])
    drawn = [label for label in labels if label != LEAVES]  # which is no curve, but a mark on one
    curves = ", ".join([*drawn, "with marks where one leaves the frame"] if len(drawn) < len(labels) else drawn)
    return {"Title": title, "Description": "; ".join(filter(None, [*others, *axes, curves]))}
