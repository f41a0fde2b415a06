"""The picture of an audit: what is beyond the target is seen, said, and not cut off without a mark."""

from __future__ import annotations

import pytest

from safestep.plots import audited_of, audited_ratios
from safestep.plots.panel import panel, single_figure


def test_records_are_gathered_by_method_without_what_was_not_audited():
    records = [
        {"kind": "steps", "method": "exact", "audited_ratio": [1.0, "nan", 0.5]},
        {"kind": "epoch", "label": "fixed 0.5"},
        {"kind": "steps", "method": "tiered", "audited_ratio": [2.0]},
        {"kind": "steps", "method": "exact", "audited_ratio": [0.25]},
        {"kind": "steps", "method": "probe", "audited_ratio": ["nan"]},
    ]
    assert audited_of(records) == {"exact": [1.0, 0.5, 0.25], "tiered": [2.0]}


def shares(ax, i):
    """The drawn curve as a function of the ratio."""
    x, y = ax.lines[i].get_data()
    return lambda ratio: [share for place, share in zip(x, y, strict=True) if place <= ratio][-1]


def test_the_curve_is_the_share_of_longer_steps(ax):
    ratios = [0.9, 1.0, 1.0, 1.1]
    audited_ratios({"probe": ratios}, ax=ax)
    curve = shares(ax, 0)
    for at in (0.85, 0.95, 1.0, 1.05, 1.15):
        assert curve(at) == sum(ratio > at for ratio in ratios) / 4


def test_ratios_are_in_units_of_the_target(ax):
    audited_ratios({"probe": [0.2, 0.55]}, target=0.5, ax=ax)
    assert max(ax.lines[0].get_xdata()) == pytest.approx(1.1)


def test_what_is_far_beyond_is_marked_and_named(ax, legend):
    audited_ratios({"exact": [1.0] * 100, "tiered": [1.0] * 99 + [40.0]}, ax=ax)
    assert legend(ax)[-1] == "leaves the frame"
    edge = [line.get_xydata().tolist() for line in ax.lines if line.get_marker() == ">" and len(line.get_xdata())]
    assert edge == [[[2.0, 0.01]]]
    x, y = ax.lines[1].get_data()
    assert (max(x), y[-1]) == (2.0, 0.01)


def test_without_departure_no_mark_is_explained(ax, legend):
    audited_ratios({"exact": [1.0]}, ax=ax)
    assert legend(ax) == ["exact", "more than allowed"]


@pytest.mark.parametrize("audited", [{}, {"exact": []}])
def test_nothing_audited_has_no_curve(audited, ax):
    assert not audited_ratios(audited, ax=ax).lines


def test_every_method_has_its_name_and_no_text_is_cut(legend, readable):
    ax = audited_ratios({"exact": [1.0], "probe": [0.5], "tiered": [0.1], "later": [1.5]}, ax=panel(single_figure()))
    readable(ax.figure)
    assert {"exact", "probe", "tiered", "later"} <= set(legend(ax))
