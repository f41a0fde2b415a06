"""Schedules, the loss of ensembles with their law, and the noise floor: limits, marks and legends."""

from __future__ import annotations

import io
import math

import pytest
import torch

from safestep.plots import Floor, LossBand, loss_over_steps, noise_floor, schedule_curves
from safestep.plots.panel import panel, single_figure

SCHEDULES = {
    "constant": lambda t: 1.0,
    "inverse": lambda t: 1 / (1 + 0.1 * t),
    "polynomial": lambda t: torch.tensor((1 + 0.1 * t) ** -0.5),
    "exponential": lambda t: math.exp(-0.1 * t),
}


def lines(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def marks(ax, shape="^"):
    return [float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == shape and len(line.get_xdata())]


def test_the_first_step_uses_the_first_count(ax, legend):
    assert schedule_curves(SCHEDULES, 50, first=2, ax=ax) is ax
    ax.figure.savefig(io.BytesIO())
    drawn = lines(ax)
    assert list(drawn["inverse"].get_xdata()) == list(range(1, 51))
    assert drawn["inverse"].get_ydata()[0] == pytest.approx(1 / 1.2)
    assert drawn["exponential"].get_ydata()[-1] == pytest.approx(math.exp(-5.1))
    assert legend(ax) == list(SCHEDULES)
    assert ax.get_yscale() == "log"
    assert ax.get_xlabel().endswith("t = k + 1")
    schedule_curves(SCHEDULES, 50, ax=ax)
    assert ax.get_xlabel().endswith("t = k − 1")
    schedule_curves(SCHEDULES, 50, first=1, ax=ax)
    assert ax.get_xlabel().endswith("t = k")


def test_factors_of_one_decade_are_drawn_on_a_linear_axis_from_zero(ax):
    schedule_curves({name: SCHEDULES[name] for name in ("constant", "inverse")}, 50, ax=ax)
    assert ax.get_yscale() == "linear"
    assert ax.get_ylim()[0] == 0.0


def test_a_rate_that_vanishes_does_not_squeeze_the_others(ax):
    schedule_curves(SCHEDULES, 1000, first=2, ax=ax)
    low, high = ax.get_ylim()
    assert low >= 1e-7
    assert high / low < 1e7


def test_long_schedules_are_asked_at_most_a_thousand_times(ax):
    asked = []
    schedule_curves({"counted": lambda t: asked.append(t) or 1.0}, 100_000, ax=ax)
    assert len(asked) == 1000
    assert (asked[0], asked[-1]) == (0, 99_999)


@pytest.mark.parametrize(("steps", "schedules"), [(0, SCHEDULES), (9, {})])
def test_without_steps_or_schedules_the_picture_is_empty(ax, steps, schedules):
    schedule_curves(schedules, steps, ax=ax)
    ax.figure.savefig(io.BytesIO())
    assert not any(len(line.get_xdata()) for line in ax.lines)


def test_factors_that_are_not_finite_leave_the_frame(ax, legend):
    schedule_curves({"a": lambda t: 1.0, "grows": lambda t: 4.0**t if t < 40 else math.inf}, 60, ax=ax)
    ax.figure.savefig(io.BytesIO())
    assert marks(ax) == [11.0]
    assert ax.get_ylim()[1] < 1e7
    assert legend(ax)[-1] == "leaves the frame"
    ax.clear()
    schedule_curves({"lost": lambda t: math.nan}, 3, ax=ax)
    ax.figure.savefig(io.BytesIO())
    assert marks(ax) == [1.0]


def test_one_step_is_a_dot_and_a_negative_number_of_steps_an_error(ax):
    schedule_curves({"inverse": SCHEDULES["inverse"]}, 1, first=2, ax=ax)
    assert list(lines(ax)["inverse"].get_ydata()) == [pytest.approx(1 / 1.2)]
    assert lines(ax)["inverse"].get_marker() == "o"
    with pytest.raises(ValueError, match="steps is -1"):
        schedule_curves(SCHEDULES, -1, ax=ax)


@pytest.mark.parametrize("label", ["a linear warm-up, then a cosine to zero over all the rest of it", "x" * 80])
def test_a_long_label_stays_on_the_page(label, readable):
    readable(schedule_curves({label: lambda t: 1.0, "b": lambda t: 2.0}, 9, ax=panel(single_figure())).figure)


@pytest.mark.parametrize("count", [1, 12, 300])
def test_many_labels_leave_room_for_the_picture(count, legend, readable):
    ax = schedule_curves({f"label {i}": lambda t: 1.0 for i in range(count)}, 9, ax=panel(single_figure()))
    readable(ax.figure)
    if count == 300:
        assert legend(ax)[-1] == f"and {300 - len(legend(ax)) + 1} more"


def band(label="constant", mean=(33.0, 2.0, 0.2, 0.21), law=(33.0, 2.0, 0.2, 0.2), **options):
    low, high = [value / 3 for value in mean], [value * 3 for value in mean]
    return LossBand(label, range(len(mean)), list(mean), low, high, law, **options)


def test_the_law_lies_dashed_over_the_mean(ax, legend):
    assert loss_over_steps([band()], ax=ax) is ax
    ax.figure.savefig(io.BytesIO())
    drawn = lines(ax)
    assert list(drawn["constant"].get_ydata()) == [33.0, 2.0, 0.2, 0.21]
    assert list(drawn["exact law"].get_ydata()) == [33.0, 2.0, 0.2, 0.2]
    assert drawn["exact law"].get_linestyle() == "--"
    assert drawn["exact law"].get_zorder() > drawn["constant"].get_zorder()
    assert ax.get_yscale() == "log"
    assert legend(ax) == ["constant", "exact law", "quantiles of the runs"]


def test_several_ensembles_are_compared(ax, legend):
    loss_over_steps([band(), band("inverse", (33.0, 3.0, 0.3, 0.1), (33.0, 3.0, 0.3, 0.1))], ax=ax)
    assert legend(ax) == ["constant", "inverse", "exact law", "quantiles of the runs"]


@pytest.mark.parametrize("growth", [10.0, 1e30])
def test_a_loss_that_diverges_leaves_the_frame_and_is_marked(ax, legend, growth):
    away = [min(33.0 * growth**k, math.inf) for k in range(9)] + [math.inf, math.nan]
    loss_over_steps([band(), band("η = 0.6", away, None)], ax=ax)
    ax.figure.savefig(io.BytesIO())
    low, high = ax.get_ylim()
    assert 33 < high <= 300 * 99
    assert low < 0.2
    first = next(k for k, value in enumerate(away) if not value <= high)
    assert marks(ax) == [first]
    assert legend(ax)[-1] == "leaves the frame"


def test_a_loss_below_zero_has_a_linear_axis_and_may_leave_below(ax, legend):
    fall = [25.0 * 0.8**k - 1e-3 * 1.5**k for k in range(60)]
    loss_over_steps([LossBand("saddle", range(60), fall, fall, fall)], ax=ax)
    ax.figure.savefig(io.BytesIO())
    assert ax.get_yscale() == "linear"
    low, high = ax.get_ylim()
    assert -100 < low < 0 < 25 < high
    assert marks(ax, "v") == [next(k for k, value in enumerate(fall) if value < low)]
    assert legend(ax)[-1] == "leaves the frame"


@pytest.mark.parametrize("mean", [[math.nan] * 3, [math.inf] * 3, [0.0] * 3, [33.0], [33.0, 0.0, 0.0]])
def test_a_loss_with_little_to_see_gives_a_readable_picture(ax, mean):
    loss_over_steps([LossBand("odd", range(len(mean)), mean, mean, mean, mean)], ax=ax)
    ax.figure.savefig(io.BytesIO())
    low, high = ax.get_ylim()
    assert 0 < low < high < math.inf


def test_no_bands_give_an_empty_picture(ax):
    loss_over_steps([], ax=ax)
    loss_over_steps([LossBand("empty", [], [], [], [])], ax=ax)
    ax.figure.savefig(io.BytesIO())
    assert not ax.lines


def test_columns_of_different_lengths_are_named():
    with pytest.raises(ValueError, match=r"band 'sgd' have the lengths .*'mean': 1"):
        LossBand("sgd", [0, 1], [1.0], [1.0, 1.0], [1.0, 1.0])
    with pytest.raises(ValueError, match=r"columns of batch 4 .*'law': 0"):
        Floor(4, [0.1], [1.0], [0.1], [])
    with pytest.raises(ValueError, match="expected positive numbers"):
        Floor(4, [0.0], [1.0], [0.1], [1.0])


def law(rate, batch):
    """Stationary E f on x₁² + 2x₂² with noise of variance 1/batch."""
    return sum(rate / batch / (2 * (2 - rate * h)) for h in (2.0, 4.0)) if rate < 0.5 else math.inf


def floor(batch, off=0.0, rates=(0.01, 0.1, 0.4, 0.5, 0.7)):
    exact = [law(rate, batch) for rate in rates]
    errors = [0.02 * value if value < math.inf else math.nan for value in exact]
    measured = [value * (1 + 0.02 * off) if value < math.inf else 1e30 for value in exact]
    return Floor(batch, list(rates), measured, errors, exact)


@pytest.mark.parametrize("line", [law, None])
def test_floors_are_points_with_bars_of_four_errors_on_the_line_of_the_law(ax, legend, line):
    assert noise_floor([floor(1, 1.5), floor(16)], law=line, ax=ax) is ax
    ax.figure.savefig(io.BytesIO())
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    bars = {container.get_label(): container for container in ax.containers}
    points, _, (ranges,) = bars["batch 1"]
    exact = [law(rate, 1) for rate in (0.01, 0.1, 0.4)]
    assert list(points.get_xdata()) == [0.01, 0.1, 0.4]
    assert list(points.get_ydata()) == pytest.approx([1.03 * value for value in exact])
    for (low, high), value in zip((segment[:, 1] for segment in ranges.get_segments()), exact, strict=True):
        assert (high - low) / 2 == pytest.approx(4 * 0.02 * value)
    colour = bars["batch 16"][0].get_color()
    drawn = next(curve for curve in ax.lines if curve.get_color() == colour and curve.get_marker() == "None")
    assert list(drawn.get_ydata()) == pytest.approx([law(rate, 16) for rate in drawn.get_xdata()])
    assert set(legend(ax)) == {"batch 1", "batch 16", "the law", "4 standard errors", "no floor", "beyond the limit"}


@pytest.mark.parametrize(("line", "limit"), [(law, 0.5), (None, math.sqrt(0.4 * 0.5))])
def test_rates_without_a_floor_are_marked_and_shaded_and_do_not_move_the_frame(ax, legend, line, limit):
    noise_floor([floor(1), floor(16)], law=line, ax=ax)
    assert marks(ax) == [0.5, 0.7]
    shades = [patch for patch in ax.patches if patch.get_alpha() == 0.1]
    assert [shade.get_x() for shade in shades] == pytest.approx([limit])
    assert ax.get_ylim()[1] < 10
    assert "no floor" in legend(ax)


@pytest.mark.parametrize("count", [1, 12])
def test_no_text_of_the_floors_is_cut_or_covered(count, readable):
    readable(noise_floor([floor(2**i) for i in range(count)], law=law, ax=panel(single_figure())).figure)


@pytest.mark.parametrize(
    "floors",
    [
        [],
        [floor(1, rates=(0.6, 0.7))],
        [Floor(2, [0.1], [math.nan], [math.nan], [0.1])],
        [Floor(2, [0.1], [0.1], [0.0], [0.1])],
        [Floor(2, [0.1], [0.1], [0.01], [math.nan])],
    ],
)
def test_floors_with_little_to_see_have_a_readable_frame(ax, floors):
    noise_floor(floors, ax=ax)
    ax.figure.savefig(io.BytesIO())
    low, high = ax.get_ylim()
    assert 0 < low < high < math.inf


def test_columns_may_be_tensors():
    steps, values = torch.arange(3), torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    assert LossBand("a", steps, values, values, values, values) == LossBand("a", [0, 1, 2], *[[3.0, 2.0, 1.0]] * 4)
    assert Floor(1, *[values] * 4) == Floor(1, *[[3.0, 2.0, 1.0]] * 4)


def test_the_marks_of_no_floor_hide_no_floor():
    ax = panel(single_figure())
    floors = [Floor(1, [0.1, 0.48, 0.5], [2e-4, 3.2, math.inf], [1e-6, 0.05, math.nan], [2e-4, 3.2, math.inf])]
    noise_floor(floors, ax=ax)
    ax.figure.savefig(io.BytesIO())
    scale = ax.figure.dpi / 72
    mark = next(line for line in ax.lines if line.get_marker() == "^" and len(line.get_xdata()))
    lowest = mark.get_transform().transform((0.5, mark.get_ydata()[0]))[1] - mark.get_markersize() / 2 * scale
    (dots,) = (line for line in ax.lines if line.get_marker() == "o")
    highest = ax.transData.transform((0.48, 3.2))[1] + dots.get_markersize() / 2 * scale
    assert lowest > highest
