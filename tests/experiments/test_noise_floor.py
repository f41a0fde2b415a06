"""The noise floor as an experiment: the law of every cell, ensembles that have forgotten their start, and the limit."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from safestep.descent import stationary_law
from safestep.experiments import find
from safestep.experiments.noise.floor_plan import WORDS, cells, law_floor
from safestep.experiments.report.figures import draw
from safestep.experiments.report.page import write_page
from safestep.experiments.runner.experiment import key_of
from safestep.experiments.runner.rundir import RunDirectory, read_records, read_results
from safestep.experiments.runner.session import Session
from safestep.experiments.runner.settings import SettingError
from safestep.records.report import number

EXPERIMENT = find("noise-floor")
SMALL = EXPERIMENT.settings(rates=(0.05, 0.1, 0.4, 0.5, 0.55), batches=(1, 4), samples=8, runs=400)
rates = st.floats(1e-3, 0.499)
kinds = st.sampled_from(["gaussian", "replacement", "distinct"])


def carry_out(path, settings):
    with RunDirectory(path) as directory:
        for _ in Session(directory, EXPERIMENT, settings, (7,)).run(jobs=1):
            pass
    return path


def row_of(settings, place=0):
    steps = EXPERIMENT.execute(settings, EXPERIMENT.runs(settings, [7])[place])
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = carry_out(tmp_path_factory.mktemp("runs") / "noise-floor", SMALL)
    draw(directory)
    write_page(directory)
    return directory


@given(rates, st.integers(1, 8), kinds, st.floats(0.1, 10))
def test_the_floor_is_the_sum_over_the_curvatures(rate, batch, kind, scale):
    share = (8 - batch) / (batch * 7) if kind == "distinct" else 1 / batch
    wanted = sum(rate * share * scale**2 / (2 * (2 - rate * h)) for h in (2.0, 4.0))
    assert law_floor(kind, rate, batch, scale, 8) == pytest.approx(wanted, rel=1e-9, abs=1e-15)


@given(st.floats(0.5, 10), st.integers(1, 8), st.sampled_from(["gaussian", "replacement"]))
def test_from_the_limit_on_there_is_no_floor(rate, batch, kind):
    assert law_floor(kind, rate, batch, 1.0, 8) == math.inf


def test_the_law_of_a_cell_is_that_of_its_own_objective_and_noise():
    for cell in cells(SMALL):
        objective = cell.objective
        bottom = objective.value(torch.tensor([objective.minimum], dtype=torch.float64)).item()
        wanted = stationary_law(objective, cell.rate, cell.noise).loss.item() - bottom
        assert cell.law_floor == pytest.approx(wanted, rel=1e-9)


def test_every_cell_has_its_own_noise_and_is_named_once():
    every = list(cells(EXPERIMENT.settings()))
    assert len({cell.label for cell in every}) == len({cell.seed(7) for cell in every}) == len(every) == 81
    assert every[0].seed(7) != every[0].seed(8)


def test_the_start_is_forgotten_and_the_floor_is_met(whole):
    rows = read_results(whole)["rows"]
    settled = [row for row in rows if math.isfinite(number(row["law_floor"]))]
    assert len(settled) == 18
    for row in settled:
        assert abs(row["law_at_end"] / row["law_floor"] - 1) < 2e-4
        assert abs(row["floor_z"]) < 4
        assert abs(row["worst_z"]) < 4
        assert row["standard_error"] / row["floor"] == pytest.approx(1 / math.sqrt(SMALL.runs), rel=0.5)
        assert not row["diverged"]


def test_beyond_the_limit_the_divergence_is_in_the_row(whole):
    rows = [row for row in read_results(whole)["rows"] if row["rate"] >= 0.5]
    assert len(rows) == 12
    for row in rows:
        assert (row["law_floor"], row["floor_z"], row["steps"]) == ("inf", None, SMALL.unstable_steps)
        assert row["diverged"] == (row["rate"] > 0.5)
        assert row["lost"] == (SMALL.runs if row["rate"] > 0.5 else 0)
        assert row["worst_z"] < 5  # the law of that very step exists
        assert number(row["floor"]) > 5


def test_numbers_that_overflow_are_kept_and_drawn(tmp_path):
    settings = replace(SMALL, rates=(5.0,), batches=(1,), noises=("gaussian",), runs=10, unstable_steps=2000)
    directory = carry_out(tmp_path / "over", settings)
    (row,) = read_results(directory)["rows"]
    assert row["diverged"] is True
    assert not math.isfinite(number(row["floor"]))
    assert draw(directory)
    assert write_page(directory).is_file()
    (summary,) = read_results(directory)["summary"]
    assert (summary["diverged_from"], "slope" in summary) == (5.0, False)


def test_a_batch_of_all_samples_has_no_floor_above_zero():
    settings = replace(SMALL, rates=(0.2,), batches=(8,), noises=("distinct",))
    row = row_of(settings)
    assert row["law_floor"] == 0.0
    assert abs(row["floor"]) < 1e-8
    assert row["worst_z"] < 4
    assert EXPERIMENT.summarise([row])[0]["slope"] == pytest.approx(0.0, abs=1e-7)


def test_a_batch_of_all_samples_is_told_and_drawn_without_a_ratio(tmp_path):
    settings = replace(SMALL, rates=(0.1, 0.2), batches=(4, 8), noises=("replacement", "distinct"), runs=50)
    directory = carry_out(tmp_path / "all", settings)
    rows = read_results(directory)["rows"]
    assert [row["floor_z"] for row in rows if row["label"].startswith("without replacement, b = 8")] == [None, None]
    assert [file.stem for file in draw(directory)] == ["noise_floor_replacement", "noise_floor_distinct"]
    assert "This page is incomplete" not in write_page(directory).read_text(encoding="utf-8")
    (summary,) = EXPERIMENT.summarise([row for row in rows if row["law_floor"] == 0])
    assert summary["worst_floor_z"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"rates": ()},
        {"rates": (0.2, 0.1)},
        {"rates": (0.0, 0.1)},
        {"batches": ()},
        {"batches": (33,)},
        {"batches": (1, 1)},
        {"noises": ("uniform",)},
        {"samples": 2},
        {"scale": 0.0},
        {"runs": 1},
        {"most_steps": 0},
        {"unstable_steps": 0},
        {"data_seed": -1},
    ],
)
def test_settings_that_cannot_be_used_are_refused(changes):
    with pytest.raises(SettingError, match=f"{next(iter(changes))}="):
        replace(EXPERIMENT.settings(), **changes)


def test_the_steps_are_bounded():
    settings = EXPERIMENT.settings(rates=(1e-5, 0.1), most_steps=300)
    slow, fast = list(cells(settings))[:2]
    assert slow.steps == 300
    assert 30 < fast.steps < 50


def test_the_pictures_are_of_the_records(whole):
    results, (records, cut) = read_results(whole), read_records(whole)
    assert cut == []
    assert sorted(map(key_of, records)) == sorted(map(key_of, results["rows"]))
    names = [file.stem for file in draw(whole)]
    assert names == ["noise_floor_gaussian", "noise_floor_replacement", "noise_floor_distinct"]
    for noise in SMALL.noises:
        with Image.open(whole / "figures" / f"noise_floor_{noise}.png") as image:
            assert image.text["Title"] == f"Noise floor, {WORDS[noise]}"


def test_the_page_explains_and_is_whole(whole):
    text = (whole / "report.html").read_text(encoding="utf-8")
    assert "This page is incomplete" not in text
    for word in ("noise floor", "without replacement", "(n − b) / (n − 1)"):
        assert word in text


def test_the_summary_holds_the_law_of_rate_batch_and_draw(whole):
    rows = [{**row, "floor": row["law_floor"]} for row in read_results(whole)["rows"]]
    slopes = {row["label"]: row["slope"] for row in EXPERIMENT.summarise(rows)}
    assert slopes["Gaussian, b = 1"] == pytest.approx(law_floor("gaussian", 0.05, 1, 1.0, 8) / 0.05)
    assert slopes["Gaussian, b = 1"] / slopes["Gaussian, b = 4"] == pytest.approx(4)
    ratio = slopes["without replacement, b = 4"] / slopes["with replacement, b = 4"]
    assert ratio == pytest.approx((8 - 4) / (8 - 1))
    assert EXPERIMENT.summarise([]) == []


def test_the_summary_has_a_line_for_each_noise_and_batch(whole):
    rows = read_results(whole)["rows"]
    again = [*rows, *({**row, "seed": 8, "floor": 3 * number(row["floor"])} for row in rows)]
    for row, both in zip(EXPERIMENT.summarise(rows), EXPERIMENT.summarise(again), strict=True):
        assert (row["last_rate"], row["diverged_from"]) == (0.4, 0.55)
        assert both["slope"] == pytest.approx(2 * row["slope"])
        assert both["law_slope"] == row["law_slope"]
