"""Pictures of one guarded run: what they draw is what the records hold, and every text can be read."""

from __future__ import annotations

import pytest

from logs.reports import inside, report
from safestep import Status
from safestep.plots import run_overview, scales, status_shares, step_lengths
from safestep.plots.panel import panel, single_figure

RUN = [
    *(inside(step) for step in range(30)),
    report(30),
    report(31, status=Status.UNDONE, scale=0.0, applied_length=0.0),
]


@pytest.mark.parametrize("picture", [scales, step_lengths, status_shares])
def test_draws_on_the_axes_given_and_can_be_read(picture, readable):
    figure = single_figure()
    ax = panel(figure)
    assert picture(RUN, ax=ax) is ax
    readable(figure)


def test_lines_are_the_columns_of_the_records(ax):
    lines = {line.get_label(): list(line.get_ydata()) for line in step_lengths(RUN, ax=ax).lines}
    assert lines["proposed"] == [one.step_length for one in RUN]
    assert lines["taken"][:31] == [one.applied_length for one in RUN][:31]


def test_of_a_run_that_is_only_watched_the_scale_that_would_be_is_drawn(ax):
    watched = [report(0, scale=1.0, status=Status.WATCHED), report(1, scale=1.0, status=Status.WATCHED)]
    lines = {line.get_label(): list(line.get_ydata()) for line in scales(watched, ax=ax).lines}
    assert lines == {"would be": [0.25, 0.25], "taken": [1.0, 1.0]}


def test_bars_add_up_and_have_the_shares_of_the_records(ax):
    status_shares(RUN * 1, ax=ax)
    heights = {box.get_label(): [bar.get_height() for bar in box] for box in ax.containers}
    assert {name: sum(bars) for name, bars in heights.items()} == {"inside": 30, "capped": 1, "undone": 1}
    assert {sum(bars) for bars in zip(*heights.values(), strict=True)} == {1.0}


def test_every_status_has_a_colour(ax):
    status_shares([report(step, status=status) for step, status in enumerate(Status)], ax=ax)
    assert {box.get_label() for box in ax.containers} == {str(status) for status in Status}


def test_a_run_without_steps_says_that_there_is_nothing(ax):
    assert [text.get_text() for text in status_shares([], ax=ax).texts] == ["nothing to show"]


def test_the_overview_has_four_panels_and_can_be_read(readable):
    figure = run_overview(RUN, title="steps.csv")
    assert len(figure.axes) == 4
    readable(figure)
