"""Curves and axes made up for the pictures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from safestep.plots import Band, Curve

Make = Callable[..., Curve]


@pytest.fixture
def curve() -> Make:
    """A function that makes a curve; columns are lists over epochs."""

    def make(label: str, policy: str = "", base_lr: float | None = None, **options: Sequence[float] | bool) -> Curve:
        diverged = bool(options.pop("diverged", False))
        columns = {name: list(values) for name, values in options.items()}
        epochs = max((len(values) for values in columns.values()), default=1)
        return Curve(
            label=label,
            policy=policy or label.partition(" ")[0].replace("capped", "cap"),
            base_lr=base_lr,
            seeds=1,
            diverged=diverged,
            epochs=list(range(1, epochs + 1)),
            columns={name: Band(*4 * [values]) for name, values in columns.items()},
        )

    return make


@pytest.fixture
def ax() -> Axes:
    """The axes of a figure outside pyplot."""
    figure = Figure(figsize=(5, 4), dpi=100)
    FigureCanvasAgg(figure)
    return figure.add_subplot()


@pytest.fixture
def legend() -> Callable[[Axes], list[str]]:
    """A function that reads what a picture explains, in its order."""
    return lambda ax: [text.get_text() for text in ax.get_legend().get_texts()] if ax.get_legend() else []


def texts_of(figure: Figure) -> list[Text]:
    """Everything that is written in a figure and can be seen, but for ticks outside the frame."""
    ticks = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                ticks |= {tick.label1, tick.label2} if not low <= tick.get_loc() <= high else {tick.label2}
    return [
        text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip() and text not in ticks
    ]


@pytest.fixture
def readable() -> Callable[[Figure], None]:
    """A check that no text of a figure is cut or lies on another, and that the pictures have most of the room."""

    def check(figure: Figure) -> None:
        figure.canvas.draw()
        page = figure.bbox
        boxes = [(text.get_text(), Text.get_window_extent(text)) for text in texts_of(figure)]
        for text, box in boxes:
            assert page.x0 <= box.x0 + 1, text
            assert box.x1 <= page.x1 + 1, text
            assert page.y0 <= box.y0 + 1, text
            assert box.y1 <= page.y1 + 1, text
        for (a, first), (b, second) in itertools.combinations(boxes, 2):
            assert not first.padded(-1).overlaps(second.padded(-1)), (a, b)
        covered = sum(ax.get_position().width * ax.get_position().height for ax in figure.axes)
        assert covered > 0.2

    return check
