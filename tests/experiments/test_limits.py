"""The limits study: its plan keeps chosen and held-out apart, a small one is carried out, and sums are as by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from safestep.experiments import find
from safestep.experiments.limits.limits_statistics import STATISTICS
from safestep.experiments.limits.limits_steps import policy_of, schedule
from safestep.experiments.limits.limits_summary import best_targets, over_limits, with_gaps
from safestep.experiments.limits.limits_tasks import OPTIMIZERS, SUBJECTS
from safestep.experiments.report.figures import draw
from safestep.experiments.report.page import write_page
from safestep.experiments.runner.experiment import key_of
from safestep.experiments.runner.rundir import RunDirectory, read_records, read_results
from safestep.experiments.runner.session import Session
from safestep.experiments.runner.settings import SettingError

EXPERIMENT = find("limits")
SETTINGS = EXPERIMENT.settings.parse(["steps=4", "optimizers=sgd", "rates=1,100", "targets=1,1e4"], quick=True)
needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")


def carry_out(path, settings=SETTINGS):
    with RunDirectory(path) as directory:
        session = Session(directory, EXPERIMENT, settings, [7])
        missing = [run.key for run in session.missing]
        for _ in session.run(jobs=1):
            pass
    return missing


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "limits"
    carry_out(directory)
    draw(directory)
    write_page(directory)
    return directory


# -- the plan ---------------------------------------------------------------------------------------------------------


def test_tuning_runs_have_every_target_and_held_out_runs_the_chosen_one():
    settings = EXPERIMENT.settings()
    runs = EXPERIMENT.runs(settings, [7, 8])
    assert len({run.key for run in runs}) == len(runs)
    parts = {role: [run for run in runs if run.options["role"] == role] for role in ("tuning", "held-out")}
    limits = len(STATISTICS)
    ways = 5 + limits * (5 + 1 + 1) * 3, 5 + limits * (5 + 1 + 1)
    assert len(parts["tuning"]) == 2 * 4 * 2 * ways[0]
    assert len(parts["held-out"]) == 5 * 4 * 2 * ways[1]
    assert {run.options["task"] for run in parts["tuning"]} == {"text-gpt", "digits-mlp"}
    assert {run.seed for run in parts["tuning"]} == {0, 1}
    assert {run.seed for run in parts["held-out"]} == {7, 8}
    for run in parts["held-out"]:
        chosen = STATISTICS[run.options["statistic"]].chosen if run.options["statistic"] else None
        assert run.options["target"] == chosen


def test_tuning_runs_are_the_same_whatever_the_fresh_seeds_are():
    tuning = [
        [run.key for run in EXPERIMENT.runs(SETTINGS, seeds) if run.options["role"] == "tuning"]
        for seeds in ([7], [8, 9])
    ]
    assert tuning[0] == tuning[1] != []


def test_a_seed_that_targets_are_chosen_on_is_refused():
    with pytest.raises(SettingError, match=r"seeds 0, 1: expected fresh ones.*--set tuning_seeds="):
        EXPERIMENT.runs(EXPERIMENT.settings(), [1, 0, 7])
    free = EXPERIMENT.settings.parse(["tuning_seeds="])
    assert {run.options["role"] for run in EXPERIMENT.runs(free, [0, 1])} == {"held-out"}


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": ("chess",)},
        {"optimizers": ()},
        {"statistics": ("largest", "largest")},
        {"policies": ("plain",)},  # these are always run
        {"rates": ()},
        {"rates": (1.0, 1.0)},
        {"rates": (0.0,)},
        {"targets": (-1.0,)},
        {"tuning_seeds": (0, 0)},
        {"tuning_seeds": (-1,)},
        {"steps": 0},
    ],
)
def test_settings_that_cannot_be_used_are_refused(changes):
    with pytest.raises(SettingError, match=f"{next(iter(changes))}="):
        replace(EXPERIMENT.settings(), **changes)


# -- what is trained --------------------------------------------------------------------------------------------------


@needs_muon
@pytest.mark.parametrize("task", SUBJECTS)
def test_muon_has_matrices_between_layers_and_adamw_the_rest(task):
    model = SUBJECTS[task].task(0).model
    muon, adamw = OPTIMIZERS["muon"](model, 0.1)
    shares = [[p for group in one.param_groups for p in group["params"]] for one in (muon, adamw)]
    assert sorted(map(id, itertools.chain(*shares))) == sorted(map(id, model.parameters()))
    assert shares[0]
    assert all(p.ndim == 2 for p in shares[0])
    last = [p for p in model.parameters() if p.ndim == 2][-1]  # makes the logits
    embeddings = [m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    assert not {id(last), *map(id, embeddings)} & set(map(id, shares[0]))


def test_every_subject_has_a_first_rate_for_every_optimizer():
    assert all(subject.rates.keys() == OPTIMIZERS.keys() for subject in SUBJECTS.values())
    assert all(rate > 0 for subject in SUBJECTS.values() for rate in subject.rates.values())


def test_schedules_and_targets_are_those_of_the_page():
    tuned, none = schedule(100, tuned=True), schedule(100, tuned=False)
    assert max(range(100), key=tuned) == 9
    assert tuned(0) == pytest.approx(0.1, rel=1e-3)
    assert tuned(50) == pytest.approx(0.5)
    assert 0 < tuned(99) < 1e-3
    assert {none(step) for step in range(100)} == {1.0}
    assert {policy_of("pin", 0.2, 100).target_at(step) for step in range(100)} == {0.2}
    decay = policy_of("pin-decay", 0.2, 100)
    assert [decay.target_at(step) for step in (0, 70, 85, 99)] == pytest.approx([0.2, 0.2, 0.1, 0.2 / 30])
    assert policy_of("cap", 0.2, 100).target == 0.2


@needs_muon
def test_two_optimizers_are_one_step_to_the_guard():
    """Pinned, Muon's and AdamW's steps together have the target as their r: neither is scaled alone."""
    settings = replace(SETTINGS, optimizers=("muon",), policies=("pin",), statistics=("curvature",), tuning_seeds=())
    run = next(run for run in EXPERIMENT.runs(settings, [7]) if run.options["policy"] == "pin")
    (record,) = EXPERIMENT.execute(settings, run)
    assert len(record["ratio"]) == 4
    applied = [ratio * scale for ratio, scale in zip(record["ratio"], record["scale"], strict=True)]
    assert applied == pytest.approx([0.2] * 4)


# -- a small run ------------------------------------------------------------------------------------------------------


def test_every_run_has_its_row_and_its_steps(whole):
    results, (records, cut) = read_results(whole), read_records(whole)
    assert cut == []
    assert {key_of(row) for row in results["rows"]} == {run.key for run in EXPERIMENT.runs(SETTINGS, [7])}
    assert {row["role"] for row in results["rows"]} == {"tuning", "held-out"}
    for row in results["rows"]:
        kept = [record for record in records if key_of(record) == key_of(row)]
        assert sum(len(record["loss"]) for record in kept) == row["steps"]
        assert row["lost"] or row["steps"] == 4


def test_runs_of_a_task_and_seed_begin_alike(whole):
    first = {}
    for record in read_records(whole)[0]:
        if record["first_step"] == 0:
            first.setdefault((record["task"], record["seed"]), set()).add(record["loss"][0])
    assert len(first) == 3
    assert all(len(losses) == 1 for losses in first.values())


def test_a_limit_that_is_never_met_is_no_limit(whole):
    """At a target ten thousand times too wide and the first rate, a capped run is the plain one, bit for bit."""
    rows = [row for row in read_results(whole)["rows"] if row["role"] == "tuning" and row["rate"] == 1.0]
    (plain,) = (row for row in rows if row["policy"] == "plain")
    wide = [row for row in rows if row["target"] is not None and row["target"] > 1e3]
    assert len(wide) == 2
    assert {(row["final_loss"], row["final_acc"]) for row in wide} == {(plain["final_loss"], plain["final_acc"])}


def test_a_cap_holds_every_applied_step(whole):
    capped = 0
    for record in read_records(whole)[0]:
        if record["policy"] == "cap":
            for ratio, scale in zip(record["ratio"], record["scale"], strict=True):
                assert scale == 0.0 or ratio * scale <= record["target"] * (1 + 1e-6)
                capped += scale < 1.0
    assert capped > 10


def test_what_is_there_is_not_run_again(whole):
    assert carry_out(whole) == []


def test_the_page_shows_both_figures_and_keeps_the_roles_apart(whole):
    text = (whole / "report.html").read_text(encoding="utf-8")
    assert "This page is incomplete" not in text
    assert '<figure id="gap_over_rates">' in text
    assert '<figure id="gap_over_targets">' in text
    labels = [row["label"] for row in read_results(whole)["summary"]]
    assert all(label.startswith(("tuning: ", "held-out: ")) for label in labels)
    assert len(labels) == (1 + 2 * 2) + 2 * (1 + 2)


# -- sums -------------------------------------------------------------------------------------------------------------

ROW = {
    "role": "tuning",
    "task": "text-gpt",
    "optimizer": "adamw",
    "policy": "plain",
    "statistic": None,
    "target": None,
    "rate": 1.0,
    "seed": 0,
    "judged": "loss",
    "final_loss": 2.0,
    "final_acc": 0.5,
    "lost": False,
}
PLAIN = [ROW | {"rate": rate, "final_loss": loss} for rate, loss in ((0.3, 2.5), (1.0, 2.0), (3.0, "nan"))]


def limited(policy, target, loss, rate=None, **changes):
    return (
        ROW | {"policy": policy, "statistic": "curvature", "target": target, "rate": rate, "final_loss": loss} | changes
    )


def the(label, rows):
    return next(row for row in over_limits(rows) if row["label"] == label)


def test_gaps_are_to_the_best_plain_run_of_the_same_seed():
    other = [ROW | {"seed": 1, "rate": rate, "final_loss": loss} for rate, loss in ((0.3, 1.0), (1.0, 1.5))]
    found = with_gaps([*PLAIN, *other, limited("pin", 0.2, 2.125), limited("pin", 0.2, 1.25, seed=1)])
    assert [row["gap"] for row in found] == [0.5, 0.0, math.inf, 0.125, 0.0, 0.5, 0.25]
    assert [row["excess"] for row in found] == pytest.approx([25, 0, math.inf, 6.25, 0, 25, 12.5])
    assert [row["bold"] for row in found] == [False, True, True, True, True, True, True]


def test_of_accuracies_the_higher_is_better():
    rows = [ROW | {"judged": "accuracy", "rate": rate, "final_acc": acc} for rate, acc in ((1.0, 0.75), (3.0, 0.5))]
    assert [(row["gap"], row["excess"]) for row in with_gaps(rows)] == [(0.0, 0.0), (0.25, 50.0)]


def test_a_summary_is_of_the_rates_from_the_best_plain_one_up():
    rows = [
        *PLAIN,
        limited("cap", 0.2, 9.0, 0.3),  # below the best rate: a slow run is no fault of the limit
        limited("cap", 0.2, 1.75, 1.0),
        limited("cap", 0.2, 2.25, 3.0),
        limited("pin", 0.2, 2.5),
        limited("pin-decay", 0.2, 2.015625),
    ]
    row = the("tuning: text-gpt, curvature 0.2", rows)
    assert (row["rates_worst"], row["rates_at"], row["rates_mean"]) == (0.25, "adamw ×3", 0.0)
    assert (row["pin_worst"], row["pin_at"], row["pin_mean"]) == (0.5, "adamw", 0.5)
    assert (row["decay_worst"], row["decay_mean"]) == (0.015625, 0.015625)
    assert (row["runs"], row["within"], row["lost"], row["best"]) == (4, 0.5, 0, True)
    plain = the("tuning: text-gpt, plain", rows)
    assert (plain["rates_worst"], plain["pin_worst"], plain["within"], plain["best"]) == ("inf", None, 0.5, None)


def test_a_lost_run_is_the_worst():
    row = the("tuning: text-gpt, curvature 0.2", [*PLAIN, limited("pin", 0.2, "nan", lost=True)])
    assert (row["pin_worst"], row["pin_mean"], row["lost"], row["within"]) == ("inf", "inf", 1, 0.0)


def test_where_every_plain_run_is_lost_a_run_that_ends_is_better():
    rows = [ROW | {"final_loss": "nan"}, limited("pin", 0.2, 2.0), limited("pin", 0.4, "inf")]
    assert [row["gap"] for row in with_gaps(rows)] == [0.0, -math.inf, 0.0]


def test_without_a_plain_run_there_is_no_gap_yet():
    assert with_gaps([limited("pin", 0.2, 2.0)]) == over_limits([limited("pin", 0.2, 2.0)]) == []


def test_the_best_target_has_most_runs_within_what_is_allowed():
    rows = with_gaps([*PLAIN, limited("pin", 0.1, 2.5), limited("pin", 0.2, 2.0), limited("pin", 0.4, 1.99)])
    assert best_targets(rows) == {"curvature": 0.4}  # as many as at 0.2, and the smaller median
    rows += with_gaps([*PLAIN, limited("pin-decay", 0.2, 2.0), limited("pin-decay", 0.4, 2.5)])
    assert best_targets(rows) == {"curvature": 0.2}


def test_held_out_runs_have_no_say_in_what_is_chosen_and_no_part_in_tuning_rows():
    tuning = [*PLAIN, limited("pin", 0.2, 2.0), limited("pin", 0.4, 2.5)]
    held_out = [row | {"role": "held-out", "seed": 7} for row in PLAIN]
    held_out += [limited("pin", target, loss, role="held-out", seed=7) for target, loss in ((0.2, 9.0), (0.4, 1.0))]
    alone, both = over_limits(tuning), over_limits([*tuning, *held_out])
    assert [row for row in both if row["role"] == "tuning"] == alone
    assert [row["best"] for row in both if row["role"] == "held-out"] == [None] * 3
    assert best_targets(with_gaps([*tuning, *held_out])) == {"curvature": 0.2}
    assert best_targets(with_gaps(held_out)) == {}


def test_seeds_of_a_role_that_lacks_plain_runs_do_not_borrow_those_of_the_other():
    assert over_limits([*PLAIN, limited("pin", 0.2, 1.0, role="held-out")]) == over_limits(PLAIN)
