"""The summary over seeds, against numpy and by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from safestep.experiments.digits.digits_summary import over_seeds


def row(label="capped 0.5", seed=0, **changes):
    values = {"final_acc": 0.9, "peak_r": 1.0, "final_cap_fraction": 0.5, "diverged": False}
    return {"label": label, "optimizer": "SGD", "policy": "cap", "base_lr": 0.5, "seed": seed, **values, **changes}


def test_statistics_are_numpys():
    accuracies, peaks, caps = [0.9, 0.95, 0.91, 0.4, 0.97], [1.0, 3.0, 2.0, 9.0, 1.5], [0.0, 1.0, 0.25, 0.5, 0.5]
    rows = [
        row(seed=seed, final_acc=accuracy, peak_r=peak, final_cap_fraction=cap, diverged=peak > 5)
        for seed, (accuracy, peak, cap) in enumerate(zip(accuracies, peaks, caps, strict=True))
    ]
    (summary,) = over_seeds(rows)
    assert summary["final_acc_mean"] == pytest.approx(np.mean(accuracies))
    assert summary["final_acc_std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert summary["final_acc_median"] == np.median(accuracies)
    assert summary["final_acc_iqr"] == pytest.approx(np.subtract(*np.percentile(accuracies, [75, 25])))
    assert summary["peak_r_median"] == np.median(peaks)
    assert summary["final_cap_fraction_median"] == np.median(caps)
    assert (summary["seeds"], summary["diverged"]) == (5, 1)
    assert (summary["label"], summary["optimizer"], summary["policy"], summary["base_lr"]) == (
        "capped 0.5",
        "SGD",
        "cap",
        0.5,
    )


def test_labels_keep_their_order_and_their_rows():
    summaries = over_seeds([row("pin", base_lr=None), row("fixed 1.0"), row("pin", seed=1, base_lr=None)])
    assert [(summary["label"], summary["seeds"]) for summary in summaries] == [("pin", 2), ("fixed 1.0", 1)]
    assert summaries[0]["base_lr"] is None
    assert over_seeds([]) == []


def test_one_seed_has_no_deviation_and_no_range():
    (summary,) = over_seeds([row()])
    assert (summary["final_acc_std"], summary["final_acc_iqr"], summary["final_acc_median"]) == ("nan", 0.0, 0.9)


def test_a_number_that_a_row_lacks_is_left_out_of_its_statistic():
    bare = {"label": "capped 0.5", "seed": 1}
    (summary,) = over_seeds([row(), bare])
    assert (summary["seeds"], summary["final_acc_mean"], summary["peak_r_median"]) == (2, 0.9, 1.0)
    (summary,) = over_seeds([bare])
    assert (summary["final_acc_mean"], summary["peak_r_median"], summary["diverged"]) == ("nan", "nan", 0)


def test_rows_read_back_from_a_file_count_the_same_and_nan_is_infinite():
    rows = [row(peak_r="inf"), row(seed=1, peak_r="nan"), row(seed=2, peak_r=2.0)]
    (summary,) = over_seeds(rows)
    assert summary["peak_r_median"] == "inf"
    assert over_seeds([{**one, "peak_r": float(one["peak_r"])} for one in rows]) == [summary]
    (few,) = over_seeds([row(peak_r=math.nan), row(seed=1, peak_r=1.0), row(seed=2, peak_r=2.0)])
    assert few["peak_r_median"] == 2.0
    json.dumps(summary, allow_nan=False)
