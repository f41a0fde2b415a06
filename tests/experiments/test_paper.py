"""The paper's single steps: r in closed form, onsets that scale as they must, small runs, and sums as by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from experiments.quick_runs import quick_run
from safestep.experiments import find
from safestep.experiments.paper.one_step import course, crossing, downhill, exact_ratio, random_direction
from safestep.experiments.paper.paper_tasks import ARCHITECTURES, LINEAR, PERCEPTRON, Cooled, checkpoint
from safestep.experiments.runner.settings import SettingError

STUDIES = ("phase-transition", "random-directions", "temperature")
RATIOS = [10 ** (place / 10 - 2) for place in range(41)]


def linear(seed=0, classes=5, samples=30):
    torch.manual_seed(seed)
    model = torch.nn.Linear(7, classes).double()
    return model, (torch.randn(samples, 7).double(), torch.randint(classes, (samples,)))


def stretched(displacement, factor):
    return {name: factor * part for name, part in displacement.items()}


def onset(model, displacement, batch):
    return crossing(RATIOS, course(model, displacement, batch, batch, RATIOS).inflation, 2.0)


# -- r ----------------------------------------------------------------------------------------------------------------


def test_of_a_linear_softmax_r_is_the_spread_of_the_inputs_times_the_step():
    model, (x, _) = linear()
    step = random_direction(model, torch.Generator().manual_seed(1))
    step = {name: part.double() for name, part in step.items()}
    change = x @ step["weight"].T + step["bias"]
    expected = float((change.max(1).values - change.min(1).values).max()) / math.pi
    assert exact_ratio(model, x, step) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_r_of_every_architecture_is_that_of_a_difference_and_scales_with_the_step(architecture):
    model, (x, y), _ = checkpoint(3, architecture=architecture, steps=1)
    model, x = model.double(), x.double() if x.is_floating_point() else x
    step = downhill(model, (x, y))
    r = exact_ratio(model, x, step)
    assert exact_ratio(model, x, stretched(step, -37.0)) == pytest.approx(37.0 * r, rel=1e-9)
    small = stretched(step, 1e-7 / r)  # a kink of ReLU is not crossed on so short a way
    start = dict(model.named_parameters())
    with torch.no_grad():
        there, back = (
            torch.func.functional_call(model, {name: p + sign * small[name] for name, p in start.items()}, (x,))
            for sign in (1, -1)
        )
    change = (there - back) / 2
    difference = float((change.amax(-1) - change.amin(-1)).max()) / math.pi
    assert difference == pytest.approx(1e-7, rel=1e-4)


def test_a_course_begins_at_the_step_of_r_1_and_leaves_the_model_alone():
    model, batch = linear()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    step = downhill(model, batch)
    one = course(model, step, batch, batch, [1.0])
    taken = stretched(step, one.rate)
    assert exact_ratio(model, batch[0], taken) == pytest.approx(1.0, rel=1e-12)
    assert one.length == pytest.approx(float(sum(part.square().sum() for part in taken.values()).sqrt()), rel=1e-12)
    start = cross_entropy(model(batch[0]), batch[1])
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(taken[name])
        after = cross_entropy(model(batch[0]), batch[1])
    assert one.inflation == [pytest.approx(float(after / start.detach()), rel=1e-12)]


def test_the_gradient_step_is_that_of_sgd_at_the_rate():
    model, batch = linear()
    one = course(model, downhill(model, batch), batch, batch, [1.0])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=one.rate)
    cross_entropy(model(batch[0]), batch[1]).backward()
    optimizer.step()
    moved = {name: p.detach() - before[name] for name, p in model.named_parameters()}
    model.load_state_dict(before)
    assert exact_ratio(model, batch[0], moved) == pytest.approx(1.0, rel=1e-12)


# -- the onset --------------------------------------------------------------------------------------------------------


def test_the_onset_does_not_depend_on_the_length_of_the_direction():
    model, batch = linear()
    step = downhill(model, batch)
    assert onset(model, stretched(step, 1e3), batch) == pytest.approx(onset(model, step, batch), rel=1e-9)


@pytest.mark.parametrize("temperature", [0.25, 8.0])
def test_r_at_a_temperature_is_r_over_it(temperature):
    model, batch = linear()
    step = downhill(model, batch)
    cooled = {f"model.{name}": part for name, part in step.items()}
    r = exact_ratio(Cooled(model, temperature), batch[0], cooled)
    assert r == pytest.approx(exact_ratio(model, batch[0], step) / temperature, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.25, 8.0])
def test_a_linear_model_of_t_times_the_weights_at_temperature_t_has_its_onset_at_the_same_r_and_t_times_the_length(
    temperature,
):
    model, batch = linear()
    one = course(model, downhill(model, batch), batch, batch, RATIOS)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(temperature)
    warm = Cooled(model, temperature)  # the very same probabilities
    other = course(warm, downhill(warm, batch), batch, batch, RATIOS)
    assert other.inflation == pytest.approx(one.inflation, rel=1e-9)
    assert other.length == pytest.approx(temperature * one.length, rel=1e-9)
    assert other.rate == pytest.approx(temperature**2 * one.rate, rel=1e-9)


def test_the_onset_lies_between_two_points_by_logarithms():
    assert crossing([1.0, 4.0], [1.0, 4.0], 2.0) == pytest.approx(2.0)
    assert crossing([1.0, 4.0], [1.0, math.inf], 2.0) == 4.0
    assert crossing([1.0, 4.0], [3.0, 9.0], 2.0) == 1.0
    assert crossing([1.0, 4.0], [1.0, math.nan], 2.0) == math.inf
    assert crossing([1.0, 2.0, 4.0], [3.0, 1.0, 9.0], 2.0) == 1.0  # the first time counts


def test_where_the_loss_overflows_it_has_grown():
    model, batch = linear()
    step = stretched(downhill(model, batch), 1.0)
    one = course(model.float(), {name: part.float() for name, part in step.items()},
                 (batch[0].float(), batch[1]), (batch[0].float(), batch[1]), [1.0, 3e38])  # fmt: skip
    assert one.inflation[1] == math.inf


# -- what is run ------------------------------------------------------------------------------------------------------


def test_models_are_trained_at_a_temperature_or_read_at_it():
    options = {"architecture": PERCEPTRON, "steps": 3}
    plain, batch, _ = checkpoint(1, **options)
    read, same, _ = checkpoint(1, **options, temperature=4.0, way="read")
    trained, _, _ = checkpoint(1, **options, temperature=4.0, way="trained")
    assert torch.equal(batch[0], same[0])
    assert torch.allclose(read(batch[0]), plain(batch[0]) / 4.0)
    assert not torch.allclose(trained(batch[0]), plain(batch[0]) / 4.0, rtol=1e-2)
    assert not any(module.training for module in plain.modules())


def test_a_batch_has_384_samples_and_is_not_the_first_that_is_trained_on():
    _, (x, y), held_out = checkpoint(1, architecture=LINEAR, steps=0)
    assert len(x) == len(y) == 384
    assert len(held_out[1]) == 450
    _, (x, y), held_out = checkpoint(1, architecture="text-gpt", steps=0)
    assert y.numel() == 384
    assert held_out[1].numel() == 2048


@pytest.mark.parametrize("study", STUDIES)
def test_a_quick_run_has_a_row_and_courses_for_every_run_and_a_page(study, tmp_path):
    run = quick_run(study, tmp_path)
    experiment, settings, results, records, page = run.experiment, run.settings, run.results, run.records, run.page
    assert len(results["rows"]) == run.planned == (2 if study == "random-directions" else 4)
    assert len(records) == len(results["rows"]) * (1 + settings.directions)
    assert all(len(record["inflation"]) == len(record["r"]) == settings.points for record in records)
    assert "This page is incomplete" not in page
    assert all(f'<figure id="{name}">' in page for name in experiment.own_figures)
    told = experiment.findings(results)
    assert 1 <= len(told) <= 3
    assert all("paper" in sentence for sentence in told[:1])


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": ("chess",)},
        {"checkpoints": ()},
        {"checkpoints": (5, 5)},
        {"checkpoints": (-1,)},
        {"directions": -1},
        {"points": 1},
        {"inflation": 1.0},
    ],
)
def test_settings_that_cannot_be_used_are_refused(study, changes):
    with pytest.raises(SettingError, match=f"{next(iter(changes))}="):
        replace(find(study).settings(), **changes)


@pytest.mark.parametrize("values", [(), (1.0,), (1.0, 1.0), (0.0, 1.0)])
def test_temperatures_that_cannot_be_used_are_refused(values):
    with pytest.raises(SettingError, match="temperatures="):
        replace(find("temperature").settings(), temperatures=values)


# -- sums -------------------------------------------------------------------------------------------------------------

ROW = {"label": "linear, 10 steps", "architecture": "linear", "steps": 10, "way": "trained", "temperature": 1.0,
       "seed": 0, "onset": 1.0, "kept": 1.0, "collapse": 4.0, "length": 0.1, "rate": 0.2,
       "onsets": [], "lengths": []}  # fmt: skip


def test_a_summary_has_medians_and_the_least_that_is_kept_and_the_paper_stands_below():
    lost = {"onset": 3.0, "kept": 0.5, "collapse": "inf", "onsets": ["inf", 1.0], "lengths": ["inf", 1.0]}
    rows = [ROW | {"onsets": [0.1, 10.0], "lengths": [1.0, 1.0]}, ROW | {"seed": 1} | lost]
    one, every, paper = find("random-directions").summarise(rows)
    assert (one["onset"], one["kept"], one["collapse"], one["runs"]) == (2.0, 0.5, "inf", 2)
    assert (one["random"], one["low"], one["high"], one["directions"]) == (5.5, 0.1, "inf", 4)
    assert (one["spread"], one["spread_length"]) == (pytest.approx(1.0), 0.0)
    assert every == one | {"label": "all"}
    assert (paper["label"], paper["kept"], paper["collapse"]) == ("paper", "all", "1 to 10")


def test_without_random_directions_nothing_is_told_of_them():
    one, _, _ = find("phase-transition").summarise([ROW])
    assert (one["random"], one["low"]) == (None, None)
    assert find("phase-transition").summarise([]) == []


def test_the_spread_over_temperatures_is_of_each_seed_and_its_error_over_seeds():
    rows = [
        ROW | {"temperature": t, "seed": seed, "onset": onset, "length": 10 * onset, "rate": rate}
        for t, seed, onset, rate in ((1.0, 0, 1.0, 1.0), (2.0, 0, 100.0, 1.0), (1.0, 1, 1.0, 1.0), (2.0, 1, 1.0, 10.0))
    ]
    found = {row["unit"]: row for row in find("temperature").summarise(rows)}
    wide, narrow = math.sqrt(2), 0.0
    assert found["r"]["ours"] == pytest.approx((wide + narrow) / 2)
    assert found["r"]["error"] == pytest.approx(wide / 2)
    assert found["r"]["apart"] == pytest.approx((wide / 2 - 0.164) / (wide / 2))
    assert found["length"]["ours"] == found["r"]["ours"]
    assert found["length"]["paper"] == found["learning rate"]["paper"] == 0.992
    assert found["learning rate"]["ours"] == pytest.approx(wide / 4)
    assert {row["seeds"] for row in found.values()} == {2}


def test_seeds_that_lack_temperatures_are_no_spread_yet():
    rows = [ROW, ROW | {"seed": 1}, ROW | {"seed": 1, "temperature": 2.0, "onset": "inf"}]
    for row in find("temperature").summarise(rows):
        assert (row["ours"], row["error"], row["seeds"]) == (None, None, 0) or row["unit"] != "r"
