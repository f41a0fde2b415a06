"""The noisy descents as an experiment: within sampling error of the law, kept, drawn and told."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from PIL import Image

from safestep.experiments import find
from safestep.experiments.report.figures import draw
from safestep.experiments.report.page import write_page
from safestep.experiments.runner.experiment import key_of
from safestep.experiments.runner.rundir import RunDirectory, read_records, read_results
from safestep.experiments.runner.session import Session
from safestep.experiments.runner.settings import SettingError
from safestep.records.report import number

EXPERIMENT = find("noisy-descent")
SMALL = EXPERIMENT.settings(runs=300, long_steps=120)
KEYS = {"schedule", "steps", "mean_x1", "mean_x2", "var_x1", "var_x2", "mean_f", "law_mean_f", "worst_z"}


def carry_out(path, settings, seeds=(7,)):
    with RunDirectory(path) as directory:
        for _ in Session(directory, EXPERIMENT, settings, seeds).run(jobs=1):
            pass
    return path


def executed(settings, run):
    """The records and the row of one run."""
    steps, records = EXPERIMENT.execute(settings, run), []
    while True:
        try:
            records.append(next(steps))
        except StopIteration as end:
            return records, end.value


def rows_of(settings, seed=7):
    return [executed(settings, run)[1] for run in EXPERIMENT.runs(settings, [seed])]


@pytest.fixture(scope="module")
def published():
    """The rows of the whole experiment: 20 000 runs of every schedule."""
    return rows_of(EXPERIMENT.settings())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = carry_out(tmp_path_factory.mktemp("runs") / "noisy-descent", SMALL)
    draw(directory)
    write_page(directory)
    return directory


def test_the_defaults_are_the_runs_of_the_note(published):
    assert [(row["schedule"], row["steps"], row["runs"]) for row in published] == [
        ("no noise", 20, 1),
        ("constant", 50, 20_000),
        ("inverse", 50, 20_000),
        ("polynomial", 50, 20_000),
        ("piecewise constant", 50, 20_000),
        ("exponential", 50, 20_000),
        ("exponential", 1000, 20_000),
    ]
    assert all(row.keys() >= KEYS for row in published)
    settings = EXPERIMENT.settings()
    assert (settings.rate, settings.scale, settings.batch, settings.first) == (0.1, 1.0, 1, 2)
    assert (settings.beta, settings.alpha, settings.decay) == (0.1, 0.5, 0.1)


def test_every_statistic_is_within_four_standard_errors_of_the_law(published):
    assert all(0 <= row["worst_z"] <= row["worst_z_any"] < 4 for row in published)


def test_the_law_in_the_rows_is_the_recursion_by_hand(published):
    factors = {
        "constant": lambda t: 1.0,
        "inverse": lambda t: 1 / (1 + 0.1 * t),
        "polynomial": lambda t: (1 + 0.1 * t) ** -0.5,
        "piecewise constant": lambda t: 0.1 ** (t // 20),
        "exponential": lambda t: math.exp(-0.1 * t),
    }
    for row in published[1:]:
        m, v = [-5.0, -2.0], [0.0, 0.0]
        for k in range(1, row["steps"] + 1):
            eta = 0.1 * factors[row["schedule"]](k + 1)
            for i, h in enumerate((2.0, 4.0)):
                m[i], v[i] = (1 - eta * h) * m[i], (1 - eta * h) ** 2 * v[i] + eta**2
        assert row["law_mean_f"] == pytest.approx(m[0] ** 2 + v[0] + 2 * (m[1] ** 2 + v[1]), rel=1e-9)
        assert row["law_mean_x1"] == pytest.approx(m[0], abs=1e-12)
        # not of the same code as worst_z
        for i in (0, 1):
            mean, variance = row[f"mean_x{i + 1}"], row[f"var_x{i + 1}"]
            assert abs(mean - m[i]) < 4 * math.sqrt(v[i] / 20_000)
            assert abs(variance - v[i]) < 4 * v[i] * math.sqrt(2 / 19_999)


def test_the_exponential_run_stalls_where_the_note_says_and_an_off_by_one_does_not(published):
    long = published[-1]
    assert long["law_mean_x1"] == pytest.approx(-0.826, abs=5e-4)
    assert long["mean_x1"] == pytest.approx(-0.826, abs=5e-4 + 4 * math.sqrt(long["var_x1"] / 20_000))
    off = replace(EXPERIMENT.settings(), first=1, runs=2000)
    run = EXPERIMENT.runs(off, [7])[-1]
    wrong = executed(off, run)[1]
    assert wrong["law_mean_x1"] == pytest.approx(-0.676, abs=5e-4)
    assert abs(wrong["mean_x1"] - long["law_mean_x1"]) > 50 * math.sqrt(wrong["var_x1"] / 2000)


def test_without_noise_there_is_one_run_and_it_is_the_closed_form(published):
    quiet = published[0]
    assert quiet["last_point"] == "epoch 20, x1: -0.057646, x2: -0.000073"
    assert (quiet["var_x1"], quiet["var_x2"], quiet["comparisons"]) == (0.0, 0.0, 0)
    assert (quiet["mean_x1"], quiet["mean_x2"]) == pytest.approx((-5 * 0.8**20, -2 * 0.6**20), rel=1e-6)
    assert quiet["worst_z"] < 1


def test_the_sums_of_the_rates_tell_who_can_get_anywhere(published):
    bounded = {row["schedule"] for row in published if math.isfinite(number(row["rate_sum_ever"]))}
    assert bounded == {"piecewise constant", "exponential"}
    tail = 0.1 * math.exp(-0.2) / (1 - math.exp(-0.1))
    assert published[-1]["rate_sum_ever"] == pytest.approx(tail)
    assert published[-1]["rate_sum"] == pytest.approx(tail)
    assert published[1]["rate_sum"] == pytest.approx(5.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"runs": 1},
        {"steps": 0},
        {"quiet_steps": 0},
        {"long_steps": 50},
        {"rate": 0.0},
        {"scale": -1.0},
        {"batch": 0},
        {"beta": 0.0},
        {"alpha": 0.0},
        {"decay": 0.0},
        {"stair": 0},
        {"drop": 1.0},
        {"first": -1},
    ],
)
def test_settings_that_cannot_be_used_are_refused(changes):
    with pytest.raises(SettingError, match=f"{next(iter(changes))}="):
        replace(EXPERIMENT.settings(), **changes)


def test_a_run_is_the_same_whenever_it_is_executed(whole):
    rows = read_results(whole)["rows"]
    for run in reversed(EXPERIMENT.runs(SMALL, [7])):
        row = executed(SMALL, run)[1]
        assert row == next(kept for kept in rows if key_of(kept) == run.key)
    assert executed(SMALL, EXPERIMENT.runs(SMALL, [8])[1])[1] != rows[1]


def test_the_records_hold_what_the_rows_say(whole):
    results, (records, cut) = read_results(whole), read_records(whole)
    assert cut == []
    for row in results["rows"]:
        kinds = {}
        for record in (record for record in records if key_of(record) == key_of(row)):
            kinds.setdefault(record["kind"], []).append(record)
        (course,), (rates,), traces = kinds["course"], kinds["rates"], kinds["trace"]
        assert course["at"][-1] == len(rates["rate"]) == row["steps"]
        assert all(course[key][-1] == row[key] for key in ("mean_x1", "var_x2", "mean_f", "law_mean_f", "worst_z"))
        assert max(course["worst_z"]) == row["worst_z_any"]
        assert [len(course[key]) for key in ("mean_f", "law_var_x1", "finite")] == [len(course["at"])] * 3
        assert len(traces) == (1 if row["schedule"] == "no noise" else 3)
        assert {len(trace[key]) for trace in traces for key in ("x1", "x2")} == {row["steps"] + 1}
        assert traces[0]["last_point"] == row["last_point"]
        assert f"x1: {traces[0]['x1'][-1]:f}" in row["last_point"]


def test_the_pictures_are_of_the_records_whatever_their_order(whole, tmp_path):
    lines = (whole / "records.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "records.jsonl").write_text("".join(reversed(lines)))
    (tmp_path / "results.json").write_bytes((whole / "results.json").read_bytes())
    files = draw(tmp_path)
    assert [file.stem for file in files] == ["descent_schedules", "descent_losses", "descent_traces"]
    for file in files:
        assert file.read_bytes() == (whole / "figures" / file.name).read_bytes()
    with Image.open(files[2]) as image:
        assert "no noise, 20 steps" in image.text["Description"]


def test_the_page_explains_and_is_whole(whole):
    text = (whole / "report.html").read_text(encoding="utf-8")
    assert "This page is incomplete" not in text
    for picture in ("descent_schedules", "descent_losses", "descent_traces"):
        assert f'<figure id="{picture}"' in text
    for word in ("standard error", "Which schedule of the rate does both?", "v ← (1 − ηh)² v + η²σ²", "Σ η for ever"):
        assert word in text


def test_a_killed_run_is_told_as_far_as_it_went(whole, tmp_path):
    results = read_results(whole)
    lines = (whole / "records.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "records.jsonl").write_text("".join(lines[:5]) + lines[5][:30])
    (tmp_path / "results.json").write_text(json.dumps({**results, "rows": results["rows"][:1], "finished": None}))
    draw(tmp_path)
    text = write_page(tmp_path).read_text(encoding="utf-8")
    assert "rows so far: 1." in text
    assert "left out: 1 (line 6: cut short" in text


def test_a_rate_beyond_the_limit_is_a_result_and_no_error(tmp_path):
    settings = replace(SMALL, rate=0.6, runs=50, steps=150, long_steps=151)
    directory = carry_out(tmp_path / "wild", settings)
    constant = read_results(directory)["rows"][1]
    assert constant["diverged"] is True
    assert draw(directory)
    assert '<tr class="diverged"><th scope="row">constant</th>' in write_page(directory).read_text(encoding="utf-8")


def test_over_seeds_the_worst_and_the_means_are_told(published):
    rows = [{**published[1], "seed": seed, "mean_f": 0.05 + seed / 100, "worst_z": 1.0 + seed} for seed in range(3)]
    (summary,) = EXPERIMENT.summarise(rows)
    assert (summary["seeds"], summary["worst_z"]) == (3, 3.0)
    assert summary["mean_f"] == pytest.approx(0.06)
    assert summary["comparisons"] == 3 * published[1]["comparisons"]
    assert EXPERIMENT.summarise([]) == []
