"""An animation of a descent: its traces grow over the contours, saved as a GIF or as a page that needs nothing else."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from safestep.plots import style
from safestep.plots.contours import Value
from safestep.plots.panel import bare_axes, figure_of
from safestep.plots.plane import Limits
from safestep.plots.scene import Place, scene_of
from safestep.plots.traces import TITLE, draw_picture

_MOST = 100
"""So many pictures an animation has at most, unless more are asked for."""
_DPI = 110
"""Dots per inch: half of a figure that is kept, for a hundredth of the pictures."""
_SHORTEST, _LONGEST = 0.1, 3600.0
"""Seconds that an animation may take."""
_HOLD = 1.0
"""Seconds that a GIF rests at its end before it begins again."""

# matplotlib's player takes the signs on its buttons from a font in the net: here they are letters.
_SIGNS = {"minus": "−", "plus": "+", "fast-backward": "«", "step-backward": "‹", "step-forward": "›",
          "fast-forward": "»", "pause": "‖", "play": "►", "flip-horizontal": "◄"}  # fmt: skip
_HEAD = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{TITLE}</title>
<style>
body {{ margin: 8px; font-family: sans-serif; text-align: center; }}
.animation, .animation img {{ max-width: 100%; }}
.animation input[type=range].anim-slider {{ width: 95%; }}
.animation .anim-buttons button {{ width: 30px; height: 30px; }}
.fa {{ font-style: normal; }}
{" ".join(f'.fa-{name}::before {{ content: "{sign}"; }}' for name, sign in _SIGNS.items())}
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
    if target.suffix.lower() not in {".gif", ".html", ".htm"}:
        raise ValueError(
            f"{target.name!r} ends in {target.suffix!r}; an animation can be saved as .gif, or as .html, a page with a "
            "slider"
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"there is no directory {str(target.parent)!r} to save {target.name!r} in: make it first"
        )
    if (frames is not None and frames < 1) or not _SHORTEST <= seconds <= _LONGEST:
        raise ValueError(
            f"frames is {frames} and seconds {seconds}; "
            f"expected at least 1 frame, and {_SHORTEST} to {_LONGEST:g} seconds"
        )
    scene, ax = scene_of(traces, frame, minimum, start), bare_axes(ax)
    artists = draw_picture(value, scene, ax)
    counter = ax.annotate("", (1, 0), (-5, 5), "axes fraction", "offset points", ha="right", zorder=8,
                          fontsize=style.TEXT_SIZE, color=style.INK, backgroundcolor="#ffffffb0")  # fmt: skip

    def show(step: int) -> list[Artist]:
        counter.set_text(f"step {step}")
        for artist in artists:
            artist.until(step)
        return []

    last = max((runs.shape[1] for runs in scene.runs.values() if runs.numel()), default=1) - 1
    steps = _spread(last, frames or _MOST)
    new = target.with_name(f".{target.stem}.new{target.suffix.lower()}")
    try:
        _save(figure_of(ax), new, show, steps, len(steps) / seconds)
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
        show(last)
    return ax


def _spread(last: int, most: int) -> list[int]:
    """Return at most so many steps from 0 to the last, evenly spread, both among them; of one, the last."""
    count = min(last + 1, most)
    return [last] if count == 1 else [round(place * last / (count - 1)) for place in range(count)]


def _save(figure: Figure, path: Path, show: Callable[[int], list[Artist]], steps: list[int], rate: float) -> None:
    """Save one picture for each step, so many a second, as the name of the file says."""
    from matplotlib.animation import FuncAnimation, PillowWriter

    settings: Any = {
        "savefig.dpi": _DPI,
        "animation.embed_limit": 1e6,  # which drops pictures; here their number is limited
        # Settings of the user's that change the size of a saved figure would tear the pictures apart.
        "savefig.bbox": None,
        "savefig.facecolor": "white",
        "savefig.transparent": False,
    }
    gif = path.suffix == ".gif"
    # Pillow joins equal pictures to one that stands longer.
    shown = [*steps, *steps[-1:] * round(_HOLD * rate)] if gif else steps
    animation = FuncAnimation(figure, show, shown, init_func=list, cache_frame_data=False)
    with mpl.rc_context(settings):
        if gif:
            animation.save(path, PillowWriter(fps=rate))  # type: ignore[arg-type]  # any number
        else:
            player = re.sub(r"<link\b[^>]*>", "", animation.to_jshtml(fps=rate))  # type: ignore[arg-type]
            path.write_text(f"{_HEAD}{player}</body>\n</html>\n", encoding="utf-8")
