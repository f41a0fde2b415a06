"""Titles are computed: for made-up data they say what the data say."""

from __future__ import annotations

from dataclasses import replace

from safestep.plots import curves_of
from safestep.plots import headlines as say

NAN = float("nan")


def test_loss_names_who_diverges_and_which_policies_never_do(curve):
    curves = [
        curve("fixed 0.5", train_loss=[1.0]),
        curve("fixed 5.0", diverged=True),
        curve("capped 5.0", train_loss=[1.0]),
        curve("pin", train_loss=[1.0]),
    ]
    assert say.loss_title(curves) == "Fixed 5.0 diverges; no capped or pinned run does"


def test_loss_does_not_praise_a_policy_with_one_diverged_run(curve):
    curves = [curve("fixed 5.0", diverged=True), curve("capped 1.0"), curve("capped 5.0", diverged=True), curve("pin")]
    assert say.loss_title(curves) == "Fixed 5.0 and capped 5.0 diverge; no pinned run does"


def test_loss_when_all_or_many_diverge(curve):
    lost = [curve(f"fixed {i}", diverged=True) for i in range(6)]
    assert say.loss_title(lost) == "Every run diverges"
    assert say.loss_title([*lost, curve("pin")]) == "6 of 7 runs diverge; no pinned run does"
    assert say.loss_title(lost[:1]) == "Fixed 0 diverges"


def test_loss_without_divergence_names_the_lowest_end(curve):
    curves = [curve("fixed 1.0", train_loss=[0.1, 0.5]), curve("pin", train_loss=[2.0, 0.25])]
    assert say.loss_title(curves) == "No run diverges; pin ends lowest, at 0.25"
    assert say.loss_title([curve("pin", train_loss=[NAN])]) == "No run diverges"
    assert say.loss_title([]) == "No run diverges"


def test_loss_over_seeds_does_not_claim_every_seed(curve):
    several = replace(curve("fixed 5.0", diverged=True), seeds=5)
    assert say.loss_title([several, curve("pin")]) == "Fixed 5.0 diverges in at least one seed; no pinned run does"


def test_accuracy_gives_the_range_of_each_policy(curve):
    ends = [("fixed 0.05", 0.66), ("fixed 5.0", 0.1), ("capped 0.05", 0.66), ("capped 5.0", 0.962), ("pin", 0.962)]
    curves = [curve(label, test_acc=[0.5, end]) for label, end in ends]
    assert say.accuracy_title(curves) == "Fixed runs end at 10–66 %, capped ones at 66–96 %, pin at 96 %"
    assert say.accuracy_title(curves[-1:]) == "Pin ends at 96 %"
    assert say.accuracy_title([]) == "No run was tested"


def test_lr_says_what_the_cap_did_at_the_end(curve):
    cut = [curve(f"capped {lr}", base_lr=lr, mean_lr=[lr, end]) for lr, end in ((0.05, 0.05), (0.5, 0.14), (5.0, 0.17))]
    pin = curve("pin", mean_lr=[3.0, 0.16])
    assert say.lr_title([*cut, pin]) == "The cap brings base rates 0.5 and 5.0 down to 0.14–0.17; the pin chooses 0.16"
    assert say.lr_title(cut[:1]) == "The cap leaves every rate as it is at the end"
    assert say.lr_title([curve("fixed 0.5", base_lr=0.5, mean_lr=[0.5])]) == "The rates end where they were set"
    assert say.lr_title([curve("throttle", mean_lr=[0.5, 0.2])]) == "The rates end at 0.2"
    assert say.lr_title([curve("capped 5.0", base_lr=5.0, mean_lr=[NAN])]) == "No rate took effect"
    assert say.lr_title([]) == "No rate took effect"


def test_ratio_says_who_passes_the_target(curve):
    inside, edge = curve("capped 5.0", max_r=[0.5, 1.0005]), curve("pin", max_r=[1.0, 1.0])
    over = [curve("fixed 0.5", max_r=[0.1, 18.29]), curve("fixed 5.0", max_r=[NAN])]
    assert say.ratio_title([inside, edge], 1.0) == "No step of any run goes past r = 1"
    title = say.ratio_title([inside, edge, *over], 1.0)
    assert title == "Capped and pinned steps stay within r = 1; fixed 0.5 and 5.0 go past it"
    assert say.ratio_title([inside, over[0]], 1.0) == "Capped steps stay within r = 1; fixed 0.5 reaches 18.3"


def test_ratio_does_not_praise_a_cap_that_was_passed(curve):
    curves = [curve("capped 1.0", max_r=[1.2]), curve("capped 5.0", max_r=[1.0]), curve("pin", max_r=[1.0])]
    assert say.ratio_title(curves, 1.0) == "Pinned steps stay within r = 1; capped 1.0 reaches 1.2"
    assert say.ratio_title(curves[:2], 1.0) == "Capped 1.0 reaches 1.2"
    assert say.ratio_title(curves, 2.0) == "No step of any run goes past r = 2"


def line(label, policy, seed, r):
    return {"kind": "epoch", "label": label, "policy": policy, "base_lr": 5.0, "seed": seed, "epoch": 1, "max_r": r}


def test_ratio_over_seeds_looks_at_every_seed():
    capped = [line("capped 5.0", "cap", seed, 0.5) for seed in range(4)]
    fixed = [line("fixed 5.0", "fixed", seed, r) for seed, r in enumerate((0.5, 0.5, 0.5, 900.0))]
    assert say.ratio_title(curves_of(capped), 1.0) == "No step of any run goes past r = 1"
    title = say.ratio_title(curves_of([*capped, *fixed]), 1.0)
    assert title == "Capped steps stay within r = 1; fixed 5.0 reaches 900 in at least one seed"
    worse = [*capped, line("capped 5.0", "cap", 9, "nan"), *fixed]
    assert say.ratio_title(curves_of(worse), 1.0) == "Capped 5.0 and fixed 5.0 go past r = 1 in at least one seed"


def test_labels_are_joined_with_shared_words_said_once():
    assert say.named_list(["fixed 0.5"]) == "fixed 0.5"
    assert say.named_list(["fixed 0.5", "capped 0.5", "capped 2.0", "pin"]) == "fixed 0.5, capped 0.5, 2.0 and pin"
