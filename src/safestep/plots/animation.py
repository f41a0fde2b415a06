"""An animation of a descent: its traces grow over the contours, saved as a GIF or as a page that needs nothing else."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from safestep.plots import style
from safestep.plots.contours import Value
from safestep.plots.panel import bare_axes
from safestep.plots.plane import Limits
from safestep.plots.scene import Place, scene_of
from safestep.plots.traces import traces_with_headline

if TYPE_CHECKING:
    from matplotlib.animation import AbstractMovieWriter

_MOST = 100
"""So many pictures an animation has at most, unless more are asked for."""
_DPI = 110
"""Dots per inch: half of a figure that is kept, for a hundredth of the pictures."""
_SHORTEST, _LONGEST = 0.1, 3600.0
"""Seconds that an animation may take."""
_HOLD = 1.0
"""Seconds that a GIF rests at its end before it begins again."""

# matplotlib's player takes the signs on its buttons from a font in the net: here they are letters.
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE</title>
<style>
body { margin: 8px; font-family: sans-serif; text-align: center; }
.animation img { max-width: 100%; }
.animation { max-width: 100%; }
.animation input[type=range].anim-slider { width: 95%; }
.animation .anim-buttons button { width: 30px; height: 30px; }
.fa { font-style: normal; }
.fa-minus::before { content: "\\2212"; }
.fa-plus::before { content: "+"; }
.fa-fast-backward::before { content: "\\AB"; }
.fa-step-backward::before { content: "\\2039"; }
.fa-step-forward::before { content: "\\203A"; }
.fa-fast-forward::before { content: "\\BB"; }
.fa-pause::before { content: "\\2016"; }
.fa-play::before { content: "\\25BA"; }
.fa-flip-horizontal { display: inline-block; transform: scaleX(-1); }
</style>
</head>
<body>
"""


def animate_trace(
    value: Value,
    traces: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    *,
    frames: int | None = None,
    seconds: float = 6.0,
    frame: Limits | None = None,
    minimum: Place | None = None,
    start: Place | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Save the picture of `trace_contours` as an animation in which the traces grow step by step.

    The file is written beside its place and moved there when it is whole: a failed save leaves what was there.

    Args:
        value: f, see `trace_contours`.
        traces: by label, of shape ``(points, 2)`` or ``(runs, points, 2)``; all grow at the same time, and one that
            has fewer points than another ends before it.
        path: where to save: a name that ends in .gif, or in .html for a page with a slider.
        frames: how many pictures, evenly spread over the points, the first and the last among them; at most one for
            each point. Without, at most 100.
        seconds: how long the animation takes, from 0.1 to 3600.
        frame: (lowest, highest) x₁ and (lowest, highest) x₂; chosen by the picture if not given.
        minimum: where f is lowest, if that is known.
        start: where all traces start; without, the first point of each.
        ax: where to draw; new axes without. The whole figure of the axes is saved.

    Returns:
        The axes, with the last picture.

    Raises:
        ValueError: if the name ends otherwise, there are no frames, the time is too short or too long, or a trace, a
            place, the frame or what f returns has another shape.
        FileNotFoundError: if the directory does not exist.

    Example:
        >>> import tempfile, torch
        >>> bowl = lambda x: x[..., 0] ** 2 + 2 * x[..., 1] ** 2
        >>> trace = torch.tensor([[-5.0, -2.0], [-4.0, -1.2], [-3.2, -0.72]])
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     axes = animate_trace(bowl, {"no noise": trace}, f"{directory}/descent.gif", minimum=(0, 0))
        ...     len(list(Path(directory).iterdir()))
        1
    """
    target = Path(path)
    save = _saver(target)
    if (frames is not None and frames < 1) or not _SHORTEST <= seconds <= _LONGEST:
        raise ValueError(
            f"frames is {frames} and seconds {seconds}; "
            f"expected at least 1 frame, and {_SHORTEST} to {_LONGEST:g} seconds"
        )
    drawn = traces_with_headline(value, scene_of(traces, frame, minimum, start), bare_axes(ax))
    last = max((runs.shape[1] for runs in drawn.shown.values()), default=1) - 1
    steps = _spread(last, frames or _MOST)
    counter = drawn.ax.annotate(
        "",
        (1, 0),
        (-5, 5),
        "axes fraction",
        "offset points",
        ha="right",
        va="bottom",
        fontsize=style.TEXT_SIZE,
        color=style.INK,
        path_effects=[withStroke(linewidth=3, foreground="white", alpha=0.8)],
        zorder=8,
    )

    def show(step: int) -> None:
        counter.set_text(f"step {step}")
        for artist in drawn.artists:
            artist.until(step)

    root = drawn.ax.figure
    figure = root if isinstance(root, Figure) else root.figure
    new = target.with_name(f".{target.stem}.new{target.suffix.lower()}")
    try:
        # Settings of the user's that change the size of a saved figure would tear the pictures apart.
        with mpl.rc_context({"savefig.bbox": None, "savefig.facecolor": "white", "savefig.transparent": False}):
            save(figure, new, steps, show, len(steps) / seconds)
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
        show(last)
    return drawn.ax


def _spread(last: int, most: int) -> list[int]:
    """Return at most so many steps from 0 to the last, evenly spread, both among them; of one, the last."""
    count = min(last + 1, most)
    return [last] if count == 1 else [round(place * last / (count - 1)) for place in range(count)]


Save = Callable[[Figure, Path, list[int], Callable[[int], None], float], None]


def _saver(target: Path) -> Save:
    suffix = target.suffix.lower()
    savers: dict[str, Save] = {".gif": _save_gif, ".html": _save_page, ".htm": _save_page}
    if suffix not in savers:
        raise ValueError(
            f"{target.name!r} ends in {target.suffix!r}; an animation can be saved as .gif, or as .html, a page with a "
            "slider"
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"there is no directory {str(target.parent)!r} to save {target.name!r} in: make it first"
        )
    return savers[suffix]


def _save_gif(figure: Figure, path: Path, steps: list[int], show: Callable[[int], None], rate: float) -> None:
    from matplotlib.animation import PillowWriter

    # Pillow joins equal pictures to one that stands longer.
    _grab(PillowWriter(**_speed(rate)), figure, path, [*steps, *steps[-1:] * round(_HOLD * rate)], show)


def _save_page(figure: Figure, path: Path, steps: list[int], show: Callable[[int], None], rate: float) -> None:
    from matplotlib.animation import HTMLWriter

    # Its limit of the embedded bytes drops pictures; here their number is limited.
    _grab(HTMLWriter(**_speed(rate), embed_frames=True, embed_limit=1e6), figure, path, steps, show)
    player = re.sub(r"<link\b[^>]*>", "", path.read_text(encoding="utf-8"))
    title = " ".join(figure.axes[0].get_title(loc="left").split()) if figure.axes else ""
    path.write_text(_HEAD.replace("TITLE", html.escape(title)) + player + "</body>\n</html>\n", encoding="utf-8")


def _speed(rate: float) -> dict[str, Any]:
    """Return the pictures a second as matplotlib's writers take them: typed as whole, used as any number."""
    return {"fps": rate}


def _grab(
    writer: AbstractMovieWriter, figure: Figure, path: Path, steps: list[int], show: Callable[[int], None]
) -> None:
    with writer.saving(figure, path, _DPI):
        for step in steps:
            show(step)
            writer.grab_frame()
