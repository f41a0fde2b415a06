"""Traces of descent over contours: what is inside the frame, and what leaves it and where."""

from __future__ import annotations

import io
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from safestep.plots import trace_contours, traces_side_by_side
from safestep.plots.contours import draw_contours, levels, values_on
from safestep.plots.panel import panel, single_figure
from safestep.plots.plane import departures, drawable, plane_limits, runs_of, within

START = (-5.0, -2.0)


def bowl(x):
    return x[..., 0] ** 2 + 2 * x[..., 1] ** 2


def rosenbrock(x):
    return (1 - x[..., 0]) ** 2 + 100 * (x[..., 1] - x[..., 0] ** 2) ** 2


def saddle(x):
    return x[..., 0] ** 2 - x[..., 1] ** 2


def descent(rate, steps, noise=0.0, runs=None, start=START):
    """Gradient descent on the bowl, shape (points, 2) or (runs, points, 2)."""
    x = torch.tensor(start, dtype=torch.float64)
    x = x if runs is None else x.repeat(runs, 1)
    points = [x]
    for _ in range(steps):
        x = x - rate * (torch.tensor([2.0, 4.0]) * x + noise * torch.randn_like(x))
        points.append(x)
    return torch.stack(points, -2)


def marks(ax, *shapes):
    return [
        (line.get_marker(), float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in ax.lines
        if line.get_marker() in shapes and len(line.get_xdata())
    ]


def inside(ax, place):
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    return left < place[0] < right and low < place[1] < high


def contour_levels(ax):
    return max((list(found.levels) for found in ax.collections if hasattr(found, "levels")), key=len, default=[])


def test_a_trace_is_drawn_point_by_point_over_contours(ax, legend):
    trace = descent(0.1, 20)
    assert trace_contours(bowl, {"no noise": trace}, minimum=(0, 0), ax=ax) is ax
    ax.figure.savefig(io.BytesIO())
    dots = next(line for line in ax.lines if len(line.get_xdata()) == 21)
    assert torch.equal(torch.tensor(dots.get_xydata()), trace)
    (segment,) = next(found for found in ax.collections if isinstance(found, LineCollection)).get_segments()
    assert torch.allclose(torch.tensor(segment), trace)
    assert inside(ax, START)
    assert inside(ax, (0, 0))
    assert len(contour_levels(ax)) > 8
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x₁", "x₂")
    assert legend(ax) == ["no noise", "start", "minimum"]


def test_start_end_and_minimum_are_marked(ax):
    trace = descent(0.1, 20)
    trace_contours(bowl, {"sgd": trace}, minimum=(0, 0), ax=ax)
    assert marks(ax, "+") == [("+", 0.0, 0.0)]
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert [tuple(line.get_xydata()[0]) for line in hollow] == [START]
    assert [trace[-1].tolist()] in [line.get_xydata().tolist() for line in ax.lines]


@pytest.mark.parametrize("minimum", [(0.0, 0.0), None])
def test_a_trace_that_blows_up_to_1e30_does_not_move_the_frame(ax, legend, minimum):
    trace = descent(0.6, 210)
    assert 1e29 < float(trace[-1].norm()) < 1e32
    trace_contours(bowl, {"η = 0.6": trace}, minimum=minimum, ax=ax)
    ax.figure.savefig(io.BytesIO())
    assert max(map(abs, (*ax.get_xlim(), *ax.get_ylim()))) < 60
    assert inside(ax, START)
    assert legend(ax)[-1] == "leaves the frame"
    left = marks(ax, "^", "v", "<", ">")
    assert left
    assert left[0][0] in "^v"  # x₁ has curvature 2 and converges at this rate
    assert left[0][2] == pytest.approx(ax.get_ylim()[left[0][0] == "^"])


@pytest.mark.parametrize(("towards", "shape"), [((9, 1), ">"), ((-9, 1), "<"), ((1, 9), "^"), ((1, -9), "v")])
def test_the_mark_of_leaving_is_on_the_edge_that_is_crossed(ax, towards, shape):
    trace = torch.tensor([[0.0, 0.0], towards])
    trace_contours(bowl, {"sgd": trace}, frame=((-2, 2), (-3, 3)), ax=ax)
    ((found, x, y),) = marks(ax, "^", "v", "<", ">")
    assert found == shape
    edge = {">": (2, 2 / 9), "<": (-2, 2 / 9), "^": (3 / 9, 3), "v": (3 / 9, -3)}[shape]
    assert (x, y) == pytest.approx(edge)


def test_a_trace_that_is_not_finite_from_some_point_ends_in_a_cross(ax, legend):
    trace = descent(0.1, 30)
    trace[12:] = math.nan
    trace_contours(bowl, {"sgd": trace}, minimum=(0, 0), ax=ax)
    ax.figure.savefig(io.BytesIO())
    ((_, x, y),) = marks(ax, "x")
    assert [x, y] == pytest.approx(trace[11].tolist())
    assert legend(ax)[-1] == "last finite point"


@pytest.mark.parametrize(
    "traces",
    [
        {},
        {"sgd": torch.empty(0, 2)},
        {"sgd": torch.empty(0, 5, 2)},
        {"lost": torch.full((9, 2), math.nan)},
        {"sgd": torch.tensor([START])},
    ],
)
def test_little_or_nothing_to_show_is_drawn_around_the_minimum(ax, traces):
    trace_contours(bowl, traces, minimum=(0, 0), ax=ax)
    ax.figure.savefig(io.BytesIO())
    assert inside(ax, (0, 0))
    figure = traces_side_by_side(bowl, traces, minimum=(0, 0))
    figure.savefig(io.BytesIO())
    assert len(figure.axes) == 1


def test_of_several_runs_each_is_a_faint_line_and_of_very_many_the_first(ax, legend):
    runs = descent(0.1, 50, noise=1.0, runs=300)
    trace_contours(bowl, {"sgd": runs}, minimum=(0, 0), ax=ax)
    lines = next(found for found in ax.collections if isinstance(found, LineCollection))
    assert len(lines.get_segments()) == 200
    assert lines.get_alpha() < 0.1
    assert legend(ax)[0] == "sgd, 200 of 300 runs"


def test_a_long_trace_has_thinner_dots_than_a_short_one(ax):
    size = {}
    for steps in (20, 1000):
        ax.clear()
        trace_contours(bowl, {"sgd": descent(0.1, steps, noise=1.0)}, ax=ax)
        size[steps] = next(line for line in ax.lines if len(line.get_xdata()) == steps + 1).get_markersize()
    assert size[1000] < size[20] / 2


def test_several_labels_have_colours_and_a_legend(ax, legend):
    traces = {"a": torch.tensor([[0.0, 3.0], [3.0, 4.0]]), "b": torch.tensor([[0.0, 3.0], [0.0, 1.0]])}
    trace_contours(bowl, traces, minimum=(0, 0), ax=ax)
    assert legend(ax) == ["a", "b", "start", "minimum"]
    lines = [found for found in ax.collections if isinstance(found, LineCollection)]
    assert len({tuple(line.get_color()[0][:3]) for line in lines}) == 2


def test_labels_may_be_numbers():
    trace = torch.tensor([[0.0, 3.0], [3.0, 4.0]])
    assert list(runs_of({0.1: trace, 2: trace})) == ["0.1", "2"]


@pytest.mark.parametrize("count", [1, 4, 12])
def test_no_text_of_a_panel_is_cut_or_covered_even_with_long_labels(count, readable):
    traces = {f"a label that goes on and on, number {i}, of several": descent(0.01 * i, 9) for i in range(count)}
    readable(trace_contours(bowl, traces, minimum=(0, 0), ax=panel(single_figure())).figure)


def test_side_by_side_shares_one_frame_and_names_each(readable):
    traces = {"tame": descent(0.1, 50), "beyond": descent(0.6, 300), "third": descent(0.2, 9)}
    figure = traces_side_by_side(bowl, traces, minimum=(0, 0))
    readable(figure)
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in figure.axes}) == 1
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(traces)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["start", "minimum", "leaves the frame"]


@pytest.mark.parametrize(
    ("traces", "options", "error", "says"),
    [
        (torch.zeros(3, 2), {}, TypeError, "traces is a Tensor; expected a mapping"),
        ({"sgd": torch.zeros(5, 3)}, {}, ValueError, r"'sgd' has the shape \(5, 3\); expected \(points, 2\)"),
        ({"sgd": torch.zeros(2)}, {}, ValueError, r"'sgd' has the shape \(2,\)"),
        ({}, {"minimum": (0.0, math.nan)}, ValueError, "minimum is .*finite"),
        ({}, {"start": (0.0, 1.0, 2.0)}, ValueError, "start is .*two finite coordinates"),
        ({}, {"frame": ((1.0, 0.0), (0.0, 1.0))}, ValueError, "frame is .*lowest"),
    ],
)
@pytest.mark.parametrize("picture", [trace_contours, traces_side_by_side])
def test_wrong_shapes_are_named(ax, picture, traces, options, error, says):
    ax = {"ax": ax} if picture is trace_contours else {}
    with pytest.raises(error, match=says):
        picture(bowl, traces, **options, **ax)


def test_a_function_that_does_not_give_one_value_a_point_is_named(ax):
    with pytest.raises(ValueError, match=r"values of the shape \(\).*one value for each point"):
        trace_contours(lambda x: x.square().sum(), {}, ax=ax)


def test_a_function_that_is_not_finite_everywhere_is_white_there_and_said_so(ax, legend):
    trace_contours(lambda x: torch.log(x[..., 0]) + x[..., 1] ** 2, {}, frame=((-1, 1), (-1, 1)), ax=ax)
    ax.figure.savefig(io.BytesIO())
    assert legend(ax) == []  # for one entry there is none
    trace_contours(lambda x: torch.log(x[..., 0]), {"sgd": torch.tensor([[0.5, 0.5]])}, frame=((-1, 1), (-1, 1)), ax=ax)
    assert "f is not finite" in legend(ax)
    trace_contours(lambda x: x[..., 0] * math.nan, {}, ax=ax)
    trace_contours(lambda x: torch.full_like(x[..., 0], 3.0), {}, ax=ax)
    trace_contours(lambda x: (x[..., 0] * 1e3).exp(), {}, ax=ax)  # up to inf
    ax.figure.savefig(io.BytesIO())


def test_the_function_is_asked_once_without_gradients_in_float64(ax):
    asked = []

    def value(x):
        asked.append((x.dtype, torch.is_grad_enabled()))
        return bowl(x)

    trace_contours(value, {"sgd": descent(0.1, 3)}, ax=ax)
    assert asked == [(torch.float64, False)]


@pytest.mark.parametrize("value", [bowl, rosenbrock, saddle, lambda x: 0.5 * (x[..., 0] ** 2 + 100 * x[..., 1] ** 2)])
def test_contours_are_the_same_for_a_rising_function_of_f(value):
    limits = ((-2.0, 2.0), (-1.0, 3.0))
    values = values_on(value, limits)[2]
    found = levels(values)
    assert len(found) >= 9
    shares = [float((values < level).double().mean()) for level in found]
    cubed = levels(values**3)
    again = [float((values**3 < level).double().mean()) for level in cubed]
    assert again == pytest.approx(shares, abs=1e-3)
    assert max(b - a for a, b in itertools.pairwise([0.0, *shares, 1.0])) < 0.15  # no band takes most of the picture


def test_the_bottom_of_a_valley_has_levels_of_its_own():
    assert levels(values_on(rosenbrock, ((-2.0, 2.0), (-1.0, 3.0)))[2])[0] < 0.2
    rows = levels(values_on(saddle, ((-2.0, 2.0), (-1.0, 3.0)))[2])
    assert len(rows) == 9  # unbounded below: its lowest values are in a corner


numbers = st.floats(allow_nan=True, allow_infinity=True)
traces = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12)


@given(st.lists(traces, max_size=3), st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), max_size=2))
def test_any_frame_is_finite_and_holds_starts_and_anchors(found, anchors):
    runs = list(runs_of({str(i): torch.tensor(trace, dtype=torch.float64) for i, trace in enumerate(found)}).values())
    limits = plane_limits(runs, anchors)
    for low, high in limits:
        assert -math.inf < low < high < math.inf
    for place in [*anchors, *(run[0, 0].tolist() for run in runs)]:
        point = torch.tensor(place, dtype=torch.float64)
        assert not point.isfinite().all() or bool(within(point, limits))


@given(traces)
def test_departures_lie_on_the_edge_they_name_and_begin_each_stretch_outside(found):
    limits = ((-1.0, 2.0), (-3.0, 4.0))
    run = runs_of({"": torch.tensor(found, dtype=torch.float64)})[""][0]
    seen = within(run, limits).tolist()
    gone = departures(run, limits)
    assert [there.step for there in gone] == [i for i in range(len(seen) - 1) if seen[i] and not seen[i + 1]]
    for there in gone:
        assert bool(within(torch.tensor([there.x, there.y], dtype=torch.float64) * (1 - 1e-9), limits))
        edge = {"left": there.x + 1, "right": there.x - 2, "bottom": there.y + 3, "top": there.y - 4}
        if there.edge == "nowhere":
            assert not run[there.step + 1].isfinite().all()
        else:
            assert edge[there.edge] == pytest.approx(0.0, abs=1e-9)


@given(traces)
def test_what_is_drawn_is_never_far_outside_and_true_inside(found):
    limits = ((-1.0, 2.0), (-3.0, 4.0))
    run = runs_of({"": torch.tensor(found, dtype=torch.float64)})[""][0]
    line = drawable(run, limits)
    seen = within(run, limits)
    assert torch.equal(line[seen], run[seen])
    assert float(line.nan_to_num(0.0).abs().max()) < 1e5


@pytest.mark.parametrize("growth", [1.5, 2.0, 10.0])
def test_the_frame_of_a_run_that_runs_away_shows_its_beginning(growth):
    away = torch.tensor([[-5.0 * 0.8**k, -2.0 * (-growth) ** k] for k in range(150)], dtype=torch.float64)
    (left, right), (low, high) = plane_limits(list(runs_of({"": away}).values()), [(0.0, 0.0)])
    assert (left, right) == pytest.approx((-5.6, 0.6), abs=0.1)
    assert -9 < low < -2
    assert 0 < high < 9


def test_slow_progress_and_noise_do_not_run_away():
    slow = torch.stack([torch.linspace(-5, 1, 1000), torch.linspace(-2, 3, 1000)], -1)[None].double()
    assert plane_limits([slow]) == ((-5.72, 1.72), (-2.6, 3.6))
    noisy = torch.randn(40, 200, 2, dtype=torch.float64).cumsum(1)
    limits = plane_limits([noisy])
    assert float(within(noisy, limits).double().mean()) > 0.95


def test_contours_keep_the_limits_of_the_axes():
    figure = Figure()
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    ax.set(xlim=(-2, 2), ylim=(-1, 1))
    assert draw_contours(ax, bowl, ((-2.0, 2.0), (-1.0, 1.0)))
    assert (ax.get_xlim(), ax.get_ylim()) == ((-2.0, 2.0), (-1.0, 1.0))


def test_pictures_side_by_side_can_be_drawn_on_axes_of_ones_own():
    figure = Figure(figsize=(8, 3))
    FigureCanvasAgg(figure)
    own = [figure.add_subplot(1, 2, place) for place in (1, 2)]
    traces = {"short": torch.tensor([[-5.0, -2.0], [-4.0, -1.2]]), "none": torch.tensor([[-5.0, -2.0]])}
    places = [ax.get_position().bounds for ax in own]
    assert traces_side_by_side(bowl, traces, minimum=(0, 0), ax=own) is figure
    assert [ax.get_title(loc="left") for ax in own] == ["short", "none"]
    assert [ax.get_position().bounds for ax in own] == places
    assert own[0].get_xlim() == own[1].get_xlim()
    assert not figure.texts
    with pytest.raises(ValueError, match="2 axes for 1 labels"):
        traces_side_by_side(bowl, {"one": traces["none"]}, ax=own)
