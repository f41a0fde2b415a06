"""Curves and axes made up for the pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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
def title() -> Callable[[Axes], str]:
    """A function that reads the headline of a picture, as one line with plain spaces."""
    return lambda ax: " ".join(ax.get_title(loc="left").split())


@pytest.fixture
def subtitle() -> Callable[[Axes], str]:
    """A function that reads the line below the headline."""
    return lambda ax: " ".join(" ".join(t.get_text() for t in ax.texts if t.get_gid() == "subtitle").split())
