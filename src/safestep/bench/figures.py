"""The figures of a benchmark, drawn from its results.json alone."""

from __future__ import annotations

from pathlib import Path

from safestep.bench import dots, growth
from safestep.bench.look import Results
from safestep.plots import style

_PICTURES = {
    "overhead": {"overhead": dots.overhead, "memory": dots.memory},
    "scale": {"scale": growth.scale},
    "fixed": {},
}


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw what results.json holds as PNG files in a folder, which is made.

    Returns:
        The files. What was not measured is not drawn, and a figure of it that was drawn before is removed.
    """
    folder.mkdir(exist_ok=True)
    files = []
    for name, picture in _PICTURES[results["bench"]].items():
        path, figure = folder / f"{name}.png", picture(results)
        if figure is None:
            path.unlink(missing_ok=True)
        else:
            figure.savefig(path, dpi=style.DPI)
            files.append(path)
    return files
