"""The protection experiment: its matrix, a small one carried out, kept, resumed and told; pass and miss from rows."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from safestep.experiments import find
from safestep.experiments.protection.protection_summary import lost, over_methods
from safestep.experiments.report.figures import draw
from safestep.experiments.report.page import write_page
from safestep.experiments.runner.experiment import key_of
from safestep.experiments.runner.rundir import RunDirectory, read_records, read_results
from safestep.experiments.runner.session import Session
from safestep.experiments.runner.settings import SettingError
from safestep.lab.disturbances import DISTURBANCES

EXPERIMENT = find("protection")
SETTINGS = EXPERIMENT.settings(
    steps=5, methods=("exact", "control"), workloads=("digits-momentum",), disturbances=("none", "batch-8")
)


def carry_out(path, settings=SETTINGS):
    with RunDirectory(path) as directory:
        session = Session(directory, EXPERIMENT, settings, [7])
        missing = [run.key for run in session.missing]
        for _ in session.run(jobs=1):
            pass
    return missing


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "protection"
    carry_out(directory)
    draw(directory)
    write_page(directory)
    return directory


def test_the_matrix_is_what_was_asked_for():
    runs = EXPERIMENT.runs(EXPERIMENT.settings(), [0])
    options = [(run.options["workload"], run.options["rate"], run.options["disturbance"]) for run in runs]
    undisturbed = {(workload, rate) for workload, rate, disturbance in options if disturbance == "none"}
    assert undisturbed == {
        *(("digits-sgd", rate) for rate in (0.05, 0.5, 5.0)),
        *(("digits-momentum", rate) for rate in (0.05, 0.5, 2.0)),
        *(("digits-adam", rate) for rate in (0.001, 0.5, 2.0)),
        *(("transformer", rate) for rate in (0.001, 0.01, 0.5)),
        *(("text", rate) for rate in (0.001, 0.01, 0.1)),
    }
    disturbed = [one for one in options if one[2] != "none"]
    assert len(set(disturbed)) == 5 * 9
    assert len(runs) == (15 + 45) * 4


@pytest.mark.parametrize(
    "changes",
    [
        {"methods": ("exact", "guess")},
        {"methods": ()},
        {"workloads": ("digits-sgd", "digits-sgd")},
        {"disturbances": ("rain",)},
        {"steps": 0},
        {"audit": 0.0},
        {"audit": 1.5},
        {"target": 0.0},
    ],
)
def test_settings_that_cannot_be_used_are_refused(changes):
    with pytest.raises(SettingError, match=f"{next(iter(changes))}="):
        replace(EXPERIMENT.settings(), **changes)


def test_every_run_has_its_row_and_all_its_steps(whole):
    results, (records, cut) = read_results(whole), read_records(whole)
    assert cut == []
    assert {key_of(row) for row in results["rows"]} == {run.key for run in EXPERIMENT.runs(SETTINGS, [7])}
    for row in results["rows"]:
        kept = [record for record in records if key_of(record) == key_of(row)]
        assert len(kept) == 1
        ratios = [ratio for record in kept for ratio in record["audited_ratio"]]
        assert len(ratios) == row["steps"] == row["audited"] == 5
        assert row["worst"] == max(ratios) / (1.0 + 1e-4 * (row["method"] == "control"))
        assert row["touched"] == 0


def test_methods_of_a_seed_begin_alike(whole):
    first = {}
    for record in read_records(whole)[0]:
        first.setdefault((record["rate"], record["disturbance"]), set()).add((record["loss"][0], record["ratio"][0]))
    assert len(first) == 4
    assert all(len(starts) == 1 for starts in first.values())


def test_what_is_there_is_not_run_again(whole):
    assert carry_out(whole) == []


def test_the_exact_cap_holds_every_aim(whole):
    (exact,) = (row for row in read_results(whole)["summary"] if row["label"] == "exact")
    assert (exact["runs"], exact["audited"], exact["runs_above"], exact["touched"]) == (4, 20, 0, 0)
    assert exact["share_above_105"] == exact["accuracy_lost"] == 0
    assert exact["worst"] <= 1.001


@pytest.fixture(scope="module")
def cheap(tmp_path_factory):
    """Longer runs, in which the tiered method comes to leave steps out."""
    directory = tmp_path_factory.mktemp("runs") / "cheap"
    carry_out(directory, replace(SETTINGS, steps=20, methods=("probe", "tiered"), disturbances=tuple(DISTURBANCES)))
    return {row["label"]: row for row in read_results(directory)["summary"]}


@pytest.mark.parametrize("method", ["probe", "tiered"])
def test_the_cheap_methods_keep_the_aims_of_the_page(cheap, method):
    """At most 0.5 % of the steps above 1.05 of the target, none above 1.2, nothing that is inside touched."""
    found = cheap[method]
    assert found["audited"] == found["steps"] >= 20 * len(DISTURBANCES)
    assert (found["share_skipped"] > 0) == (method == "tiered")
    assert found["share_above_105"] <= 0.005
    assert found["worst"] <= 1.2
    assert found["touched"] == 0


def test_the_page_shows_the_summary_for_one_seed_and_explains_it(whole):
    text = (whole / "report.html").read_text(encoding="utf-8")
    assert "This page is incomplete" not in text
    assert '<figure id="audited_ratios">' in text
    assert text.count("<table") == 2
    assert "The audit" in text


ROW = {
    "label": "digits SGD 0.5, exact",
    "workload": "digits-sgd",
    "rate": 0.5,
    "disturbance": "none",
    "method": "exact",
    "seed": 0,
    "judged": "accuracy",
    "steps": 200,
    "audited": 200,
    "above_105": 0,
    "share_above_105": 0.0,
    "worst": 1.0,
    "capped": 100,
    "share_skipped": 0.0,
    "inside": 100,
    "touched": 0,
    "within": 80,
    "needless": 0,
    "final_acc": 0.95,
    "final_loss": 0.2,
    "diverged": False,
}


def tiered(**changes):
    return ROW | {"label": "digits SGD 0.5, tiered", "method": "tiered"} | changes


def summary(*rows):
    """The row of the tiered method over all workloads."""
    return next(row for row in over_methods([ROW, *rows]) if row["label"] == "tiered")


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"above_105": 2, "share_above_105": 0.01}, {"share_above_105": 0.01, "runs_above": 1}),
        ({"above_105": 1, "share_above_105": 0.005}, {"share_above_105": 0.005, "runs_above": 0}),
        ({"worst": 1.3}, {"worst": 1.3}),
        ({"touched": 3}, {"touched": 3, "inside": 100}),
        ({"needless": 8}, {"share_needless": 0.1}),
        ({"final_acc": "nan", "diverged": True}, {"accuracy_lost": "inf", "diverged": 1}),
        ({"audited": 0, "share_above_105": "nan", "worst": "nan"}, {"share_above_105": "nan", "worst": "nan"}),
    ],
)
def test_what_a_guard_lets_through_is_in_its_row(changes, shown):
    row = summary(tiered(**changes))
    assert {key: row[key] for key in shown} == shown


def test_a_loss_is_worse_when_it_is_larger_and_an_accuracy_when_it_is_smaller():
    for judged, column, sign in (("accuracy", "final_acc", -1), ("loss", "final_loss", 1)):
        rows = [ROW | {"judged": judged}, tiered(**{"judged": judged, column: ROW[column] + 0.125})]
        assert lost(rows, "tiered", judged) == pytest.approx(sign * 0.125)
        assert math.isnan(lost(rows, "tiered", "loss" if judged == "accuracy" else "accuracy"))


def test_seeds_are_compared_pair_by_pair():
    rows = [ROW | {"seed": seed, "final_acc": acc} for seed, acc in ((0, 0.5), (1, 0.75), (2, 0.9))]
    ours = [tiered(seed=seed, final_acc=acc) for seed, acc in ((0, 0.25), (1, 0.75), (9, 0.1))]  # 9 has no twin
    assert lost([*rows, *ours], "tiered", "accuracy") == 0.125


def test_where_the_exact_cap_diverged_too_nothing_is_lost():
    assert lost([ROW | {"final_acc": "nan"}, tiered(final_acc="nan")], "tiered", "accuracy") == 0.0


def test_shares_are_of_steps_and_not_of_runs():
    short = tiered(seed=1, steps=10, audited=10, above_105=1, share_above_105=0.1, capped=10, share_skipped=1.0)
    overall, one = [row for row in over_methods([ROW, tiered(), short]) if row["method"] == "tiered"]
    assert overall["share_above_105"] == pytest.approx(1 / 210)
    assert overall["share_skipped"] == pytest.approx(10 / 210)
    assert overall["share_capped"] == pytest.approx(110 / 210)
    assert (overall["runs"], overall["runs_above"]) == (2, 1)
    assert {**one, "label": "", "workload": ""} == {**overall, "label": "", "workload": ""}


def test_rows_of_a_workload_are_its_own():
    other = tiered(workload="text", label="text AdamW 0.01, tiered", worst=1.15, rate=0.01)
    found = {row["label"]: row["worst"] for row in over_methods([ROW, tiered(), other])}
    assert found == {
        "exact": 1.0,
        "tiered": 1.15,
        "exact: digits-sgd": 1.0,
        "tiered: digits-sgd": 1.0,
        "tiered: text": 1.15,
    }
