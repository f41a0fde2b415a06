"""Pictures of training: axes returned, drawn where asked, readable whatever the numbers are."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import matplotlib as mpl
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from safestep.plots import Band, Curve, effective_lr, largest_ratio, overview, test_accuracy, training_loss
from safestep.plots.panel import panel, single_figure
from safestep.plots.style import COLOURS

INF, NAN = math.inf, math.nan
PICTURES = [training_loss, test_accuracy, effective_lr, largest_ratio]
NAMES = [picture.__name__ for picture in PICTURES]


@pytest.fixture
def usual(curve):
    """What a digits experiment looks like: one run explodes and comes back, one is the same with and without cap."""
    falling, accuracy = [2.3 * 0.8**i for i in range(10)], [0.1 + 0.08 * i for i in range(10)]
    slow = {"train_loss": [2.3 - 0.01 * i for i in range(10)], "test_acc": [0.3] * 10, "mean_lr": [0.05] * 10}
    return [
        curve("fixed 0.05", base_lr=0.05, **slow, max_r=[0.01] * 10),
        curve(
            "fixed 5.0",
            base_lr=5.0,
            train_loss=[1e5, 7e16, *[2.3] * 8],
            test_acc=[0.1] * 10,
            mean_lr=[5.0] * 10,
            max_r=[1e10, 1.8e30, *[0.3] * 8],
            diverged=True,
        ),
        curve("capped 0.05", base_lr=0.05, **slow, max_r=[0.01] * 10),
        curve("capped 5.0", base_lr=5.0, train_loss=falling, test_acc=accuracy, mean_lr=[0.2] * 10, max_r=[1.0] * 10),
        curve("pin", train_loss=falling, test_acc=accuracy, mean_lr=[0.2] * 10, max_r=[1.0] * 10),
    ]


@pytest.fixture
def hopeless(curve):
    """Every number that must not break a picture."""
    return [
        curve("fixed 9.0", base_lr=9.0, train_loss=[NAN] * 4, test_acc=[0.1] * 4, mean_lr=[NAN] * 4, max_r=[INF] * 4),
        curve(
            "fixed 3.0",
            base_lr=3.0,
            train_loss=[2.3, 1e30, INF, NAN],
            test_acc=[0.1, NAN, 0.1, 0.1],
            mean_lr=[3.0, INF, 0.0, 3.0],
            max_r=[0.1, 1e308, NAN, 0.0],
            diverged=True,
        ),
        curve("pin", train_loss=[0.0] * 4, test_acc=[1.0] * 4, mean_lr=[1e-9] * 4, max_r=[0.0] * 4),
    ]


def names_of(curves):
    return {f"{curve.label} (diverged)" if curve.diverged else curve.label for curve in curves}


def shown_ticks(axis):
    low, high = sorted(axis.get_view_interval())
    return [tick.label1.get_text() for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


@pytest.mark.parametrize("picture", PICTURES, ids=NAMES)
def test_draws_on_the_axes_given_and_returns_them(picture, usual, ax):
    assert picture(usual, ax=ax) is ax
    assert len(ax.lines) >= len(usual)
    ax.figure.savefig(io.BytesIO())


@pytest.mark.parametrize("picture", PICTURES, ids=NAMES)
def test_makes_axes_of_its_own_where_none_are_given(picture, usual):
    from matplotlib import pyplot as plt

    ax = picture(usual)
    assert isinstance(ax, Axes)
    assert plt.fignum_exists(ax.figure.number)
    plt.close(ax.figure)


@pytest.mark.parametrize("picture", PICTURES, ids=NAMES)
def test_axes_that_are_given_need_no_pyplot(picture, usual, ax):
    from matplotlib import pyplot as plt

    before = plt.get_fignums()
    picture(usual, ax=ax)
    assert plt.get_fignums() == before


@pytest.mark.parametrize("picture", PICTURES, ids=NAMES)
def test_every_curve_is_explained_and_no_text_of_a_panel_is_cut_or_covered(picture, usual, legend, readable):
    ax = picture(usual, ax=panel(single_figure()))
    assert names_of(usual) <= set(legend(ax))
    readable(ax.figure)
    assert ax.get_legend().get_window_extent().y1 <= ax.xaxis.label.get_window_extent().y0


@pytest.mark.parametrize("seeds", [1, 7])
@pytest.mark.parametrize("count", [1, 12])
def test_one_curve_and_a_dozen_are_readable(count, seeds, curve, legend, readable):
    curves = [
        replace(curve(f"{word} {rate}", base_lr=rate, train_loss=[2.3, 1.0 + rate]), seeds=seeds)
        for word in ("fixed", "capped")
        for rate in (0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
    ][:count]
    ax = training_loss(curves, ax=panel(single_figure()))
    readable(ax.figure)
    assert len(legend(ax)) == (0 if count == seeds == 1 else count + (seeds > 1))


def test_where_a_figure_is_not_laid_out_the_legend_is_inside(usual, ax):
    training_loss(usual, ax=ax)
    ax.figure.canvas.draw()
    own, frame = ax.get_legend().get_window_extent(), ax.get_window_extent()
    assert frame.x0 <= own.x0 < own.x1 <= frame.x1
    assert frame.y0 <= own.y0 < own.y1 <= frame.y1


@pytest.mark.parametrize("picture", PICTURES, ids=NAMES)
def test_nan_inf_and_huge_numbers_leave_a_readable_picture(picture, hopeless, ax, legend):
    picture(hopeless, ax=ax)
    low, high = ax.get_ylim()
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert low < high
    assert all(math.isfinite(edge) for edge in ax.get_xlim())
    if ax.get_yscale() == "log":
        assert low > 0
        assert 10 <= high / low <= 1.01e12
    assert names_of(hopeless) <= set(legend(ax))
    ax.figure.savefig(io.BytesIO())


@pytest.mark.parametrize("picture", PICTURES, ids=NAMES)
@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_runs_of_few_epochs_or_none(picture, epochs, curve, ax):
    columns = dict.fromkeys(("train_loss", "test_acc", "mean_lr", "max_r"), [0.5] * epochs)
    picture([curve("pin", **columns)] if epochs else [], ax=ax)
    ax.figure.canvas.draw()
    assert shown_ticks(ax.xaxis) == [str(epoch) for epoch in range(1, epochs + 1)]


def test_the_frame_of_the_loss_fits_the_runs_that_did_not_diverge(usual, ax):
    training_loss(usual, ax=ax)
    low, high = ax.get_ylim()
    assert high < 10
    assert low < 2.3 * 0.8**9


def test_a_curve_that_leaves_the_frame_is_marked_on_the_upper_edge_and_said_to_be(usual, ax, legend):
    training_loss(usual, ax=ax)
    marks = [line for line in ax.lines if line.get_marker() == "^" and len(line.get_xdata()) == 1]
    assert [(mark.get_xdata()[0], to_rgb(mark.get_color())) for mark in marks] == [(1, to_rgb(COLOURS["fixed"]))]
    assert legend(ax)[-1] == "leaves the frame"


def test_no_mark_where_nothing_leaves(usual, ax, legend):
    training_loss([curve for curve in usual if not curve.diverged], ax=ax)
    assert "leaves the frame" not in legend(ax)
    assert not [line for line in ax.lines if line.get_marker() == "^" and len(line.get_xdata()) == 1]


def test_a_loss_that_only_explodes_still_has_a_frame_on_its_own_scale(curve, ax):
    training_loss([curve("fixed 9.0", train_loss=[2.3, 2.5, 2.4, 1e30, 1e30], diverged=True)], ax=ax)
    low, high = ax.get_ylim()
    assert 1 < high < 100
    assert low < 2.3


def test_accuracy_runs_from_nothing_to_all_in_per_cent(usual, ax):
    test_accuracy(usual, ax=ax)
    ax.figure.canvas.draw()
    assert shown_ticks(ax.yaxis) == ["0%", "20%", "40%", "60%", "80%", "100%"]
    assert ax.get_ylim()[0] == 0
    assert ax.get_ylim()[1] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("target", [0.5, 1.0, 2.0])
def test_the_target_is_a_labelled_line_in_the_frame(target, usual, ax, legend):
    largest_ratio(usual, target=target, ax=ax)
    levels = [line for line in ax.lines if len(line.get_ydata()) == 2 and set(line.get_ydata()) == {target}]
    assert len(levels) == 1
    assert "target" in legend(ax)
    low, high = ax.get_ylim()
    assert low < target < high <= 1e3 * target


def test_a_target_of_infinity_has_no_line(usual, ax, legend):
    largest_ratio(usual, target=INF, ax=ax)
    assert "target" not in legend(ax)


@pytest.mark.parametrize("target", [5e-324, 1e-310, 1e-303, 1e-290, 1e299, 1e306])
def test_a_target_of_any_size_leaves_a_readable_picture(target, usual, ax):
    largest_ratio(usual, target=target, ax=ax)
    ax.figure.canvas.draw()
    low, high = ax.get_ylim()
    assert 0 < low < high < INF
    assert 9.99 < high / low < 1.01e12


def test_colour_says_the_policy_and_dashes_the_rate(usual, ax):
    training_loss(usual, ax=ax)
    lines = {line.get_label().removesuffix(" (diverged)"): line for line in ax.lines}
    for curve in usual:
        assert to_rgb(lines[curve.label].get_color()) == to_rgb(COLOURS[curve.policy])
    assert lines["fixed 5.0"].get_linestyle() == lines["capped 5.0"].get_linestyle()
    assert lines["fixed 0.05"]._dash_pattern != lines["fixed 5.0"]._dash_pattern
    assert lines["fixed 0.05"].get_linewidth() > lines["capped 0.05"].get_linewidth()


def test_the_policies_differ_in_lightness_too():
    def lightness(colour):
        return sum(
            weight * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
            for weight, c in zip((0.2126, 0.7152, 0.0722), to_rgb(colour), strict=True)
        )

    fixed, cap = lightness(COLOURS["fixed"]), lightness(COLOURS["cap"])
    assert (max(fixed, cap) + 0.05) / (min(fixed, cap) + 0.05) > 1.3


def test_several_seeds_have_a_band_and_say_so(ax, legend):
    band = Band([2.0, 1.0, 0.5], [1.8, 0.8, 0.4], [2.2, 1.5, INF], [2.4, INF, INF])
    training_loss([Curve("pin", "pin", None, 5, False, [1, 2, 3], {"train_loss": band})], ax=ax)
    assert [len(found.get_paths()) for found in ax.collections] == [1, 0]  # the band, and its entry in the legend
    assert legend(ax) == ["pin", "quartiles of 5 seeds"]


def test_one_seed_has_no_band(usual, ax, legend):
    training_loss(usual, ax=ax)
    assert len(ax.collections) == 0
    assert "seeds" not in " ".join(legend(ax))


def test_overview_holds_the_four_pictures_level_in_rows_with_one_legend(usual, readable):
    figure = overview(usual, target=1.0, title="digits")
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["Training loss", "Test accuracy", "Effective learning rate", "Largest step ratio"]
    readable(figure)
    assert figure.get_suptitle() == "digits"
    places = [ax.get_position() for ax in figure.axes]
    for left, right in (places[:2], places[2:]):
        assert left.y0 == pytest.approx(right.y0)
        assert left.y1 == pytest.approx(right.y1)
    (shared,) = figure.legends
    assert not any(ax.get_legend() for ax in figure.axes)
    assert {text.get_text() for text in shared.get_texts()} == names_of(usual) | {"target", "leaves the frame"}


def test_a_users_own_settings_are_not_changed(usual):
    before = dict(mpl.rcParams)
    overview(usual)
    assert dict(mpl.rcParams) == before
