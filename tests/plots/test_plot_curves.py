"""Curves from records: order, quartiles over seeds, numbers that are none, runs done twice."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safestep.plots import curves_of
from safestep.plots.curves import quantile


def line(label, seed, epoch, **columns):
    identity = {"kind": "epoch", "label": label, "optimizer": "SGD", "policy": "cap", "base_lr": 0.5}
    return {**identity, "seed": seed, "epoch": epoch, "diverged": False, **columns}


def test_curves_come_in_the_order_of_first_appearance_and_other_lines_are_passed_over():
    records = [{"kind": "step", "ratio": 1.0}, line("b", 7, 1, x=1.0), line("a", 7, 1, x=2.0), line("b", 7, 2, x=3.0)]
    curves = curves_of(records)
    assert [curve.label for curve in curves] == ["b", "a"]
    assert curves[0].epochs == [1, 2]
    assert curves[0].columns["x"].median == [1.0, 3.0]
    assert curves[0].base_lr == 0.5
    assert curves[0].policy == "cap"
    assert curves[0].seeds == 1
    assert set(curves[0].columns) == {"x"}


def test_one_seed_has_a_band_without_width():
    (curve,) = curves_of([line("a", 7, epoch, x=epoch / 10) for epoch in (1, 2, 3)])
    band = curve.columns["x"]
    assert band.median == band.low == band.high == band.top == [0.1, 0.2, 0.3]


def test_several_seeds_give_median_and_quartiles_as_numpy_does():
    values = [0.3, 0.9, 0.1, 0.5]
    (curve,) = curves_of([line("a", seed, 1, x=value) for seed, value in enumerate(values)])
    band = curve.columns["x"]
    assert curve.seeds == 4
    expected = np.quantile(values, [0.25, 0.5, 0.75])
    assert [band.low[0], band.median[0], band.high[0]] == pytest.approx(expected, rel=1e-12)
    assert band.top == [0.9]


def test_texts_are_read_as_the_numbers_they_stand_for():
    (curve,) = curves_of([line("a", 7, 1, x="inf"), line("a", 7, 2, x="nan"), line("a", 7, 3, x=None)])
    assert curve.columns["x"].median[0] == math.inf
    assert math.isnan(curve.columns["x"].median[1])
    assert math.isnan(curve.columns["x"].median[2])


def test_one_diverged_seed_marks_the_curve():
    assert curves_of([line("a", 1, 1, x=1.0), line("a", 2, 1, x=1.0) | {"diverged": True}])[0].diverged
    assert not curves_of([line("a", 1, 1, x=1.0), line("a", 2, 1, x=1.0)])[0].diverged


def test_a_line_that_comes_twice_counts_once_and_the_later_wins():
    (curve,) = curves_of([line("a", 7, 1, x=1.0), line("a", 7, 2, x=5.0), line("a", 7, 1, x=2.0)])
    assert curve.columns["x"].median == [2.0, 5.0]


def test_a_seed_that_broke_off_is_left_out_where_it_is_missing():
    records = [line("a", 1, 1, x=1.0), line("a", 1, 2, x=1.0), line("a", 2, 1, x=3.0)]
    (curve,) = curves_of(records)
    assert curve.columns["x"].median == [2.0, 1.0]


def test_no_records_no_curves():
    assert curves_of([]) == []


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=9), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_quantiles_equal_numpys(values, q):
    assert quantile(values, q) == pytest.approx(np.quantile(values, q), rel=1e-9, abs=1e-6)


@given(st.lists(st.sampled_from([1.0, 2.0, math.inf, math.nan]), min_size=2, max_size=7))
def test_nan_counts_as_larger_than_every_number(values):
    middle = quantile(values, 0.5)
    assert not math.isnan(middle)
    assert math.isfinite(middle) == (2 * sum(map(math.isfinite, values)) > len(values))
