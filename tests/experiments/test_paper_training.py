"""rate-spikes and resnet: the paper's models, what a spike changes and when, jumps as by hand, and small runs."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu
from torch.nn.functional import gelu, layer_norm

from experiments.quick_runs import quick_run
from lab.cifar_files import fill
from safestep.experiments import find
from safestep.experiments.paper.jumps import chance_above, jumps, largest_before
from safestep.experiments.paper.one_step import exact_ratio
from safestep.experiments.paper.rate_spikes import PAPER
from safestep.experiments.paper.spike_tasks import CAP, CNN, METHODS, MODELS, contestant, full_batch
from safestep.experiments.runner.settings import SettingError

STUDIES = ("rate-spikes", "resnet")
LOSSES = st.lists(st.floats(0.0, 20.0), max_size=40)
RATIOS = st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=12)


def carried_out(study, settings, label, seed=3):
    """The records and the row of one run."""
    experiment = find(study)
    (run,) = [run for run in experiment.runs(settings, [seed]) if run.label == label]
    records, running = [], experiment.execute(settings, run)
    while True:
        try:
            records.append(next(running))
        except StopIteration as end:
            return records, end.value


# -- the models and methods of rate-spikes -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "parameters"), [("transformer", 15_114), ("mlp-layernorm", 13_514), (CNN, 3_690)])
def test_the_models_have_the_sizes_of_the_papers_code(name, parameters):
    """Counted by hand from its layers: linear maps in x out + out, norms twice their width."""
    model = MODELS[name]()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(torch.zeros(3, 64)).shape == (3, 10)


def test_attention_over_one_token_is_its_value():
    model, x = MODELS["transformer"]().double(), torch.randn(5, 64).double()
    block = model[2]
    token = model[0](x)
    value = layer_norm(token, (32,)) @ block.query_key_value.weight[64:].T + block.query_key_value.bias[64:]
    token = token + block.joined(value)
    narrow, _, wide = block.perceptron
    expected = model[4](token + wide(gelu(narrow(layer_norm(token, (32,))))))
    assert torch.allclose(model(x), expected, rtol=1e-12, atol=1e-12)


def test_all_training_images_are_one_batch_and_the_first_fifth_is_held_out():
    task = full_batch("mlp-layernorm")
    x, y = next(task.batches(1, torch.Generator()))
    assert (len(x), len(y), len(task.held_out[0])) == (1438, 1438, 359)
    assert task.held_out[1][:10].tolist() == list(range(10))  # the digits as they come


@pytest.mark.parametrize("rate", [1e-6, 1e4])
@pytest.mark.parametrize("architecture", MODELS)
def test_the_gradient_cap_makes_rate_times_gradient_a_step_of_r_1_where_it_is_longer(architecture, rate):
    torch.manual_seed(0)
    task = full_batch(architecture)
    stepper = contestant("gradient-cap", task, rate).stepper
    x, y = next(task.batches(1, torch.Generator()))
    before = {name: p.detach().clone() for name, p in task.model.named_parameters()}
    stepper.step(lambda: task.loss(x, y))
    lr = stepper.optimizers[0].param_groups[0]["lr"]
    gradient = {name: p.grad for name, p in task.model.named_parameters()}
    task.model.load_state_dict(before, strict=False)  # parameters of before; buffers stay
    r = lr * exact_ratio(task.model.eval(), x, gradient)
    assert r == pytest.approx(1.0, rel=1e-4) if rate > 1.0 else (lr == rate and r < 1.0)


@pytest.mark.parametrize("method", METHODS)
def test_a_spike_changes_nothing_before_its_one_step(method):
    settings = find("rate-spikes").settings(
        steps=16, factors=(1e4,), architectures=("mlp-layernorm",), methods=(method,)
    )
    quiet = replace(settings, factors=(1.0000001,))
    (record,), row = carried_out("rate-spikes", settings, f"mlp-layernorm, {method}, ×10000")
    (other,), _ = carried_out("rate-spikes", quiet, f"mlp-layernorm, {method}, ×1")
    assert record["loss"][:5] == other["loss"][:5]  # the loss of step 4 is of before it
    protected = method in METHODS[3:]
    assert (row["lost"], row["final_loss"] < 3.0) == (not protected, protected)
    assert (row["proposed"] or 0.0) > 100.0 if method == CAP else row["proposed"] is None


def test_the_papers_numbers_are_those_of_its_table():
    assert [PAPER[one, CAP, 1e4] for one in MODELS] == [0.953, 0.939, 0.716]
    assert [PAPER[one, "clip", 1e4] for one in MODELS] == [0.387, 0.515, 0.103]
    assert [PAPER[one, "plain", 1e4] for one in MODELS] == [0.318, 0.446, 0.134]


def test_a_summary_has_median_mean_and_error_and_how_far_the_paper_is():
    row = {"label": "a", "architecture": CNN, "method": CAP, "factor": 1e4, "running_acc": 0.1, "lost": False}
    rows = [row | {"seed": seed, "final_acc": acc, "proposed": r}
            for seed, acc, r in ((0, 0.5, 9.0), (1, 0.7, 7.0), (2, 0.9, 8.0))]  # fmt: skip
    (one,) = find("rate-spikes").summarise(rows)
    error = 0.2 / math.sqrt(3)
    assert (one["median"], one["proposed"], one["seeds"], one["lost"]) == (0.7, 8.0, 3, 0)
    assert (one["ours"], one["error"]) == (pytest.approx(0.7), pytest.approx(error))
    assert one["apart"] == pytest.approx((0.7 - 0.716) / error)
    (other,) = find("rate-spikes").summarise([one | {"factor": 10.0} for one in rows])
    assert (other["paper"], other["apart"]) == (None, None)


# -- jumps of resnet ---------------------------------------------------------------------------------------------------


@given(LOSSES)
def test_jumps_are_those_of_a_slow_twin(losses):
    high = {
        step
        for step in range(9, len(losses) - 1)
        for usual in [statistics.median(losses[step - 9 : step + 1])]
        if losses[step + 1] >= 2 * usual and losses[step + 1] >= usual + 0.1
    }
    found, ordinary = jumps(losses)
    assert found == sorted(step for step in high if step - 1 not in high)
    assert ordinary == [step for step in range(9, len(losses) - 1) if step not in high]


@given(LOSSES, LOSSES)
def test_what_comes_later_changes_no_jump(losses, later):
    found, _ = jumps(losses)
    assert jumps(losses + later)[0][: len(found)] == found


@given(RATIOS, RATIOS)
def test_the_chance_is_that_of_mann_and_whitney(ratios, others):
    expected = mannwhitneyu(ratios, others).statistic / (len(ratios) * len(others))
    assert chance_above(ratios, others) == pytest.approx(expected, abs=1e-12)
    assert chance_above(others, ratios) == pytest.approx(1.0 - expected, abs=1e-12)


@given(RATIOS, st.integers(1, 6))
def test_the_largest_before_grows_with_the_lead_and_is_itself_for_one(ratios, lead):
    steps = range(len(ratios))
    assert largest_before(ratios, steps, 1) == ratios
    pairs = zip(largest_before(ratios, steps, lead), largest_before(ratios, steps, lead + 1), strict=True)
    assert all(one <= other for one, other in pairs)


def test_a_pinned_run_takes_that_r_and_a_watched_one_what_its_rate_gives():
    settings = find("resnet").settings(steps=14, width=2, rates=(0.1,), pins=(2.0,))
    (record,), row = carried_out("resnet", settings, "pin r = 2")
    assert record["r"] == pytest.approx([2.0] * 14, rel=1e-3)
    assert (row["over"], row["max_r"]) == (1.0, pytest.approx(2.0, rel=1e-3))
    (watched,), _ = carried_out("resnet", settings, "rate 0.1")
    (doubled,), _ = carried_out("resnet", replace(settings, rates=(0.2,)), "rate 0.2")
    assert doubled["r"][0] == pytest.approx(2.0 * watched["r"][0], rel=1e-3)
    assert (watched["loss"][0], len(watched["loss"])) == (doubled["loss"][0], 14)


def test_shares_are_of_the_jumps_of_all_seeds():
    row = {"label": "rate 0.5", "rate": 0.5, "final_acc": 0.9, "max_r": 2.0, "over": 0.5, "others": 100}
    rows = [row | {"seed": 0, "jumps": 3, "jumps_over": 3, "others_over": 20, "chance": [0.9, 0.8]},
            row | {"seed": 1, "jumps": 1, "jumps_over": 0, "others_over": 30, "chance": [0.5, 0.6]},
            row | {"seed": 2, "jumps": 0, "jumps_over": 0, "others_over": 10, "chance": [None, None]}]  # fmt: skip
    (one,) = find("resnet").summarise(rows)
    assert (one["jumps"], one["after"], one["ordinary"]) == (4, 0.75, 0.2)
    assert (one["chance_1"], one["chance_5"], one["runs"]) == (pytest.approx(0.7), pytest.approx(0.7), 3)
    assert (one["paper_max_r"], one["paper_acc"]) == (29.34, 0.575)
    (none,) = find("resnet").summarise(rows[2:])
    assert (none["after"], none["chance_1"]) == (None, None)


def test_cifar_10_is_learned_from_a_folder(tmp_path):
    settings = find("resnet").settings(steps=12, width=1, rates=(0.1,), pins=(), folder=str(fill(tmp_path, "binary")))
    (record,), row = carried_out("resnet", settings, "rate 0.1")
    assert len(record["loss"]) == len(record["r"]) == 12
    assert not row["lost"]


# -- pages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("study", STUDIES)
def test_a_quick_run_has_a_row_and_a_record_for_every_run_and_a_page(study, tmp_path):
    run = quick_run(study, tmp_path)
    experiment, results, records, page = run.experiment, run.results, run.records, run.page
    assert len(results["rows"]) == len(records) == run.planned
    assert "This page is incomplete" not in page
    assert all(f'<figure id="{name}">' in page for name in experiment.own_figures)
    told = experiment.findings(results)
    assert 1 <= len(told) <= 3
    assert any("paper" in sentence for sentence in told)


@pytest.mark.parametrize(
    ("study", "changes"),
    [
        ("rate-spikes", {"architectures": ("chess",)}),
        ("rate-spikes", {"methods": ()}),
        ("rate-spikes", {"factors": (1.0,)}),
        ("rate-spikes", {"factors": ()}),
        ("rate-spikes", {"steps": 2}),
        ("rate-spikes", {"rate": 0.0}),
        ("resnet", {"rates": ()}),
        ("resnet", {"pins": (1.0, 1.0)}),
        ("resnet", {"steps": 5}),
        ("resnet", {"width": 0}),
    ],
)
def test_settings_that_cannot_be_used_are_refused(study, changes):
    with pytest.raises(SettingError, match=f"{next(iter(changes))}="):
        replace(find(study).settings(), **changes)
