"""The picture of an instrumented run: loss, weight error, gradient, curvature, margin and alpha over its steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from safestep.plots import style
from safestep.plots.endlabels import End, label_ends
from safestep.plots.frame import LEAVES, count_axis, departures, drawable, log_axis, log_frame, plain_number, usable
from safestep.plots.lines import mark_departures
from safestep.plots.panel import bare_axes, headline, level, name_axes, panel
from safestep.records.report import StepReport

Columns = Mapping[str, Sequence[float]]
"""Values over the steps, by column; and ``step``."""

_BLUE, _ORANGE, _GREEN = style.COLOURS["cap"], style.COLOURS["fixed"], style.COLOURS["pin"]
_LIMIT = 2.0
"""The margin at which gradient descent on a quadratic stops converging."""
_BLOWN_UP = 1e6
"""A frame ends at so many times the value of the first step: what a diverging run goes to would hide where it began."""
_HIGH = 0.8
"""Height of a panel, in units of a picture that stands alone."""


def throttled_run(history: Iterable[StepReport], *, title: str = "") -> Figure:
    """Draw the six pictures of an instrumented run, three rows of two.

    Args:
        history: reports with the columns of `safestep.tools.diagnostics.published`; one that is missing is left out.
        title: what stands above them.

    Returns:
        A figure outside pyplot: save it, or, where `%matplotlib inline` is on, show it as the last line of a cell.

    Example:
        >>> len(throttled_run([], title="nothing yet").axes)
        6
    """
    return throttled_columns(_columns(history), title=title)


def throttled_columns(columns: Columns, *, title: str = "") -> Figure:
    """Draw the same from columns, as kept records have them.

    Args:
        columns: one sequence per column of `safestep.tools.diagnostics.published`, and ``step``.
        title: what stands above them.
    """
    wide, high, above = 2.15 * style.WIDTH, 3 * _HIGH * style.HEIGHT, 0.4 if title else 0.0
    figure = Figure(figsize=(wide, high + above), dpi=150)
    FigureCanvasAgg(figure)
    share = high / (high + above) / 3
    for row, draws in enumerate(_PANELS):
        cells = [(column / 2, share * (2 - row), 0.5, share) for column in (0, 1)]
        level([draw(columns, panel(figure, cell)) for draw, cell in zip(draws, cells, strict=True)])
    if title:
        figure.text(0.08 / wide, 1 - 0.1 / (high + above), title, fontsize=15, weight="bold", color=style.INK, va="top")
    return figure


def _loss(columns: Columns, ax: Axes) -> Axes:
    left = _draw(ax, columns, {"loss": ("loss", _BLUE, 1.7)}, "loss")
    headline(ax, _course("The loss", columns.get("loss", [])), f"Of the batch of each step, before it.{_note(left)}")
    return ax


def _weight_error(columns: Columns, ax: Axes) -> Axes:
    left = _draw(ax, columns, {"weight_error_fro": ("error", _BLUE, 1.7)}, "weight error ‖W − A‖")
    title = _course("The weight error", columns.get("weight_error_fro", []))
    headline(ax, title, f"Distance to the solution (Frobenius).{_note(left)}")
    return ax


def _gradient(columns: Columns, ax: Axes) -> Axes:
    left = _draw(ax, columns, {"grad_norm": ("gradient", _BLUE, 1.7)}, "gradient norm ‖g‖")
    title = _course("The gradient", columns.get("grad_norm", []))
    headline(ax, title, f"Of the batch of each step.{_note(left)}")
    return ax


def _curvature(columns: Columns, ax: Axes) -> Axes:
    lines = {
        "hessian_lambda_max": ("λₘₐₓ", _ORANGE, 2.9),
        "curvature_ema": ("mean of C", _GREEN, 1.5),
        "curvature_proxy": ("C", _BLUE, 1.5),
    }
    left = _draw(ax, columns, lines, "curvature")
    sharpest = max(usable(columns.get("hessian_lambda_max", [])), default=math.nan)
    highest = max(usable(columns.get("curvature_proxy", [])), default=math.nan)
    title = f"C is at most {plain_number(highest)}"
    if not math.isnan(sharpest):
        title += f", λₘₐₓ {plain_number(sharpest)}"
    headline(
        ax, title if columns["step"] else "No steps yet", f"C: the secant curvature between two steps.{_note(left)}"
    )
    return ax


def _margin(columns: Columns, ax: Axes) -> Axes:
    lines = {
        "stability_margin_lambda_raw": ("raw ηλₘₐₓ", _ORANGE, 2.9),
        "stability_margin_lambda_ctrl": ("applied αηλₘₐₓ", _BLUE, 1.5),
    }
    left = _draw(ax, columns, lines, "stability margin", at={"limit 2": _LIMIT})
    raw, applied = (usable(columns.get(f"stability_margin_lambda_{name}", [])) for name in ("raw", "ctrl"))
    if not raw:
        title = "The margin was not measured" if columns["step"] else "No steps yet"
    else:
        beyond = [sum(value > _LIMIT for value in values) for values in (raw, applied)]
        title = f"Beyond 2: {beyond[0]} of {len(raw)} steps, {beyond[1]} as applied"
    headline(ax, title, f"On a quadratic, plain SGD diverges above 2.{_note(left)}")
    return ax


def _alpha(columns: Columns, ax: Axes) -> Axes:
    lines = {"alpha_would": ("secant law", _GREEN, 1.5), "alpha": ("applied α", _BLUE, 2.0)}
    if list(columns.get("alpha_would", [])) == list(columns.get("alpha", [])):
        del lines["alpha_would"]
    left = _draw(ax, columns, lines, "scale α", ceiling=1.0)
    applied = [value for value in columns.get("alpha", []) if math.isfinite(value)]
    if not applied:
        title = "No steps yet"
    elif min(applied) == max(applied):
        title = f"α stays at {plain_number(applied[0])}"
    else:
        title = f"α: {plain_number(min(applied))} to {plain_number(max(applied))}, at last {plain_number(applied[-1])}"
    headline(ax, title, f"The factor of the whole step, log scale.{_note(left)}")
    return ax


_PANELS: Sequence[Sequence[Callable[[Columns, Axes], Axes]]] = (
    (_loss, _weight_error),
    (_gradient, _curvature),
    (_margin, _alpha),
)


def _columns(history: Iterable[StepReport]) -> dict[str, list[float]]:
    reports = list(history)
    names = dict.fromkeys(name for report in reports for name in report.extras)
    columns = {name: [float(report.extras.get(name, math.nan)) for report in reports] for name in names}
    return {**columns, "step": [float(report.step) for report in reports]}


def _draw(
    ax: Axes,
    columns: Columns,
    lines: Mapping[str, tuple[str, str, float]],
    name: str,
    *,
    at: Mapping[str, float] | None = None,
    ceiling: float = math.inf,
) -> bool:
    """Draw columns over the steps on a logarithmic axis, later ones on top; return whether one leaves the frame.

    Args:
        ax: where to draw.
        columns: the run.
        lines: words, colour and width by column.
        name: what the axis measures.
        at: level lines, by the name to write at their end.
        ceiling: where the frame ends at the latest.
    """
    bare_axes(ax)
    at = at or {}
    shown = {column: look for column, look in lines.items() if usable(columns.get(column, []))}
    values = [value for column in shown for value in columns[column]]
    first = [usable(columns[column])[0] for column in shown]
    ceiling = min(ceiling, _BLOWN_UP * max(first)) if first else ceiling
    low, high = log_frame(values, ceiling=ceiling, keep=at.values())
    log_axis(ax, low, high)
    x = [int(step) for step in columns["step"]]
    last = count_axis(ax, x)
    ends, left = [], False
    for text, y in at.items():
        ax.plot([ax.get_xlim()[0], last], [y, y], color=style.INK, lw=0.9, ls=(0, (5, 4)), zorder=4)
        ends.append(End(last, y, text, style.INK))
    for column, (text, colour, width) in shown.items():
        line = columns[column]
        began = next(i for i, value in enumerate(line) if value > 0.0)  # C is 0 until there are two steps to compare
        known = [(step, value) for step, value in zip(x[began:], line[began:], strict=True) if not math.isnan(value)]
        steps, seen = [step for step, _ in known], [value for _, value in known]
        ax.plot(steps, drawable(seen, high), color=colour, lw=width, label=text, marker="o" if len(x) < 4 else "", ms=4)
        gone = [steps[i] for i in departures(seen, high)]
        mark_departures(ax, gone, colour)
        left = left or bool(gone)
        alone = len(shown) + len(at) == 1
        ends.append(End(steps[-1], seen[-1], plain_number(seen[-1]) if alone else text, colour))
    label_ends(ax, ends, last)
    name_axes(ax, "step", name)
    return left


def _course(what: str, values: Sequence[float]) -> str:
    """Say where a column began, was highest and ended."""
    if not values:
        return "No steps yet"
    if not math.isfinite(values[-1]):
        return f"{what} diverges from {plain_number(values[0])}"
    peak = max(usable(values), default=values[0])
    places = [values[0], *([peak] if peak > max(values[0], values[-1]) else []), values[-1]]
    return f"{what}: {' → '.join(map(plain_number, places))}"


def _note(left: bool) -> str:
    return f" {LEAVES} beyond the frame." if left else ""
