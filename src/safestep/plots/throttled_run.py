"""The picture of an instrumented run: loss, weight error, gradient, curvature, margin and alpha over its steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safestep.plots import style
from safestep.plots.frame import count_axis, log_axis, log_frame, usable
from safestep.plots.lines import draw_curve, draw_level
from safestep.plots.panel import bare_axes, legend, name_axes, name_figure, single_figure
from safestep.records.report import StepReport

Columns = Mapping[str, Sequence[float]]
"""Values over the steps, by column; and ``step``."""

_BLUE, _ORANGE, _GREEN = style.COLOURS["cap"], style.COLOURS["fixed"], style.COLOURS["pin"]
_BLOWN_UP = 1e6
"""A frame ends at so many times the value of the first step: what a diverging run goes to would hide where it began."""


@dataclass(frozen=True)
class _Panel:
    """One of the six pictures.

    Attributes:
        title: what it shows.
        y: what the axis measures.
        lines: words, colour and width by column; later ones on top.
        limit: a level, with its name.
        ceiling: where the frame ends at the latest.
    """

    title: str
    y: str
    lines: Mapping[str, tuple[str, str, float]]
    limit: tuple[float, str] | None = None
    ceiling: float = math.inf


_SECANT, _LAMBDA = ("C, between two steps", _BLUE, 1.5), "stability_margin_lambda_"
_PANELS = (
    _Panel("Loss", "loss of the batch", {"loss": ("loss", _BLUE, 1.7)}),
    _Panel("Weight error", "‖W − A‖ (Frobenius)", {"weight_error_fro": ("error", _BLUE, 1.7)}),
    _Panel("Gradient", "norm ‖g‖", {"grad_norm": ("gradient", _BLUE, 1.7)}),
    _Panel(
        "Curvature",
        "curvature",
        {
            "hessian_lambda_max": ("λₘₐₓ", _ORANGE, 2.9),
            "curvature_ema": ("mean of C", _GREEN, 1.5),
            "curvature_proxy": _SECANT,
        },
    ),
    _Panel(
        "Stability margin",
        "margin",
        {f"{_LAMBDA}raw": ("raw ηλₘₐₓ", _ORANGE, 2.9), f"{_LAMBDA}ctrl": ("applied αηλₘₐₓ", _BLUE, 1.5)},
        limit=(2.0, "2: SGD diverges above"),
    ),
    _Panel(
        "Scale of the step",
        "scale α",
        {"alpha_would": ("secant law", _GREEN, 1.5), "alpha": ("applied α", _BLUE, 2.0)},
        ceiling=1.0,
    ),
)


def throttled_run(history: Iterable[StepReport], *, title: str = "") -> Figure:
    """Draw the six pictures of an instrumented run, three rows of two.

    Args:
        history: reports with the columns of `safestep.tools.diagnostics.published`; one that is missing is left out.
        title: what stands above them.

    Returns:
        A figure outside pyplot: save it, or, where `%matplotlib inline` is on, show it as the last line of a cell.

    Example:
        >>> [ax.get_title(loc="left") for ax in throttled_run([]).axes][:3]
        ['Loss', 'Weight error', 'Gradient']
    """
    reports = list(history)
    names = dict.fromkeys(name for report in reports for name in report.extras)
    columns = {name: [float(report.extras.get(name, math.nan)) for report in reports] for name in names}
    return throttled_columns({**columns, "step": [float(report.step) for report in reports]}, title=title)


def throttled_columns(columns: Columns, *, title: str = "") -> Figure:
    """Draw the same from columns, as kept records have them.

    Args:
        columns: one sequence per column of `safestep.tools.diagnostics.published`, and ``step``.
        title: what stands above them.
    """
    figure = single_figure(2.15 * style.WIDTH, 2.4 * style.HEIGHT, dpi=150)
    for shown, ax in zip(_PANELS, figure.subplots(3, 2).flat, strict=True):
        _draw(bare_axes(ax), columns, shown)
    name_figure(figure, title)
    return figure


def _draw(ax: Axes, columns: Columns, shown: _Panel) -> None:
    """Draw the columns of a panel over the steps, on a logarithmic axis."""
    lines = {column: look for column, look in shown.lines.items() if usable(columns.get(column, []))}
    if lines.keys() >= {"alpha", "alpha_would"} and list(columns["alpha"]) == list(columns["alpha_would"]):
        del lines["alpha_would"]
    levels = [shown.limit[0]] if shown.limit else []
    first = max((usable(columns[column])[0] for column in lines), default=math.inf)
    low, high = log_frame(
        (value for column in lines for value in columns[column]),
        ceiling=min(shown.ceiling, _BLOWN_UP * first),
        keep=levels,
    )
    log_axis(ax, low, high)
    count_axis(ax, [int(step) for step in columns["step"]])
    for column, (label, colour, width) in lines.items():
        values = list(zip(columns["step"], columns[column], strict=True))
        began = next(i for i, (_, value) in enumerate(values) if value > 0.0)  # C is 0 until it has two steps
        measured = [(step, value) for step, value in values[began:] if not math.isnan(value)]
        x, y = zip(*measured, strict=True)
        draw_curve(ax, x, y, label=label, color=colour, high=high, lw=width)
    if shown.limit:
        draw_level(ax, *shown.limit)
    name_axes(ax, shown.title, "step", shown.y)
    legend(ax)
