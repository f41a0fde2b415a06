"""The numbers of docs/paper.md are those of its records, and its pictures can be drawn from them again."""

from __future__ import annotations

import gzip
import json
import math
import re
import subprocess
from pathlib import Path

import pytest

from docs.paper_tables import RECORDS, STUDIES, TABLES, TRAINED, ends, percent, results, rows, summary
from docs.track_tables import TRACK_TABLES, TRACKS
from safestep.experiments import find
from safestep.experiments.paper.jumps import jumps
from safestep.experiments.paper.paper_experiment import crossing, log_spread
from safestep.experiments.report.figures import draw
from safestep.experiments.runner.rundir import read_results
from safestep.records.report import number

PAGE = (Path(__file__).parents[2] / "docs" / "paper.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())


@pytest.mark.parametrize("table", [*TABLES, *TRACK_TABLES])
def test_the_tables_are_those_of_the_records(table):
    assert "\n".join([*table(), ""]) in PAGE


def test_the_text_beside_the_first_table_is_of_its_records():
    *models, every, _ = summary("random-directions")
    assert 0.5 < every["spread"] / every["spread_length"] < 0.6
    assert "Over six models the spread of log10 is little more than half in r of what it is in length." in TEXT
    assert {row["label"] for row in models if row["spread"] < row["spread_length"]} == {"linear, 300 steps"}
    assert "random directions differ no less in r than in length, but for the linear softmax." in TEXT
    late = rows("phase-transition", 300)
    half = [row["collapse"] for row in late]
    assert sum(one > 10 for one in half) > len(half) / 2
    assert f"mostly later than the paper has it, up to r = {max(half):.2g}, and" in TEXT
    lost, among = (percent(1 - min(row["kept"] for row in group)) for group in (late, rows("random-directions")))
    assert f"steps of r ≤ 1 lose {lost} of it at most, {among} among the {every['directions']} random" in TEXT


def test_the_models_that_lose_most_inside_are_those_of_the_text():
    least: dict[str, float] = {}
    for row in rows("phase-transition", 10):
        least[row["architecture"]] = min(row["kept"], least.get(row["architecture"], 1.0))
    worst = [least.pop(name) for name in ("linear", "digits-cnn", "digits-vit")]
    assert min(least.values()) > max(worst)
    low, high = ends([100 * one for one in worst], ".0f").split(" to ")
    assert f"as little as {low} to {high} % of the accuracy of the linear softmax, the convolutions and the" in TEXT


def test_the_text_beside_the_second_table_is_of_its_records():
    found = {row["label"]: row for row in summary("temperature")}
    of_length = found["trained at T: length"]["ours"]
    assert f"there is little to bring together ({of_length:.3f} in length), and those read at T are short of" in TEXT
    assert max(row["ours"] for row in found.values() if row["paper"] == 0.992) < 0.992


def test_the_text_on_spikes_is_of_its_records():
    found = {(row["architecture"], row["method"], row["factor"]): row for row in summary("rate-spikes")}
    models = ("transformer", "mlp-layernorm")
    three = (*models, "cnn-batchnorm")
    code = [abs(found[one, method, 1e4]["apart"]) for one in three for method in ("plain", "clip", "gradient-cap")]
    assert f"are all within {max(code):.1f} standard errors of it" in TEXT

    def ends_at(method, factor=1e4):
        return " and ".join(f"{100 * found[one, method, factor]['median']:.1f}" for one in models)

    assert f"The rule of the text keeps {ends_at('softmax-cap')} %, beside 95.3 and 93.9 in the paper" in TEXT
    kept = [found[one, "softmax-cap", 1e4] for one in models]
    fewer, more = (100 * (row["median"] - row["paper"]) for row in kept)
    assert f"paper: {-fewer:.1f} points fewer and {more:.1f} more" in TEXT
    assert f"the rule of the text does, {ends_at('safestep')}." in TEXT
    for one, factor in ((one, factor) for one in models for factor in (10.0, 1e3)):
        for method in ("softmax-cap", "safestep"):
            assert found[one, method, factor]["median"] == found[one, method, 1e4]["median"]
    r = [found[one, "softmax-cap", 1e4]["proposed"] for one in models]
    assert (
        f"Adam proposed r = {r[0]:.2g} and {r[1]:.2g} there".replace("9.4e+03", "9400").replace("9.8e+02", "980")
        in TEXT
    )
    assert f"plain runs end at {ends_at('plain', 1.0)}." in TEXT
    cnn = {
        method: 100 * found["cnn-batchnorm", method, 1e4]["median"]
        for method in ("gradient-cap", "softmax-cap", "safestep")
    }
    quiet = found["cnn-batchnorm", "plain", 1.0]
    assert f"end at {cnn['gradient-cap']:.1f} % under the rule of the code, at {cnn['softmax-cap']:.1f} under" in TEXT
    assert f"at {cnn['safestep']:.1f} under safestep's default" in TEXT
    assert f"and without any spike at {100 * quiet['median']:.1f}. So a cap" in TEXT
    assert f"the undisturbed model has {100 * quiet['running']:.1f} %" in TEXT
    lost = [
        found[row["architecture"], "plain", 1.0]["median"] - row["median"]
        for row in found.values()
        if row["factor"] == 10
    ]
    assert max(lost) < 0.02
    thousand = [100 * found[one, "plain", 1e3]["median"] for one in models]
    assert f"the plain transformer ends at {thousand[0]:.1f} and the perceptron at {thousand[1]:.1f}" in TEXT
    assert f"Adaptive clipping ends at {ends_at('agc')} after" in TEXT


def test_the_text_on_the_residual_network_is_of_its_records():
    found = {row["label"]: row for row in summary("resnet")}
    fast, pins = found["rate 2"], [found[f"pin r = {pin:g}"] for pin in (0.5, 1, 2, 4)]
    shares = f"before {percent(fast['after'])} of them and before {percent(fast['ordinary'])} of all that is no jump"
    assert f"At the rate 2 it comes {shares}; at 0.5 there are {found['rate 0.5']['jumps']} jumps" in TEXT
    zero, one, two, four = (row["jumps"] for row in pins)
    assert f"the loss jumps {zero}, {one}, {two} and {four} times" in TEXT
    right = [row["final_acc"] for row in pins]
    assert right[1] > right[2] > right[3]
    assert f"accuracy falls from {100 * right[1]:.1f} at 1 to {100 * right[3]:.1f} at 4" in TEXT
    best = max(found.values(), key=lambda row: row["final_acc"])
    ends = (
        f"the {best['label']} ends at {100 * best['final_acc']:.1f}, with {percent(best['over'])} of its steps above 1"
    )
    assert ends in TEXT


def test_the_text_beside_the_bottlenecks_is_of_their_records():
    found = rows("bottlenecks")
    ours = {row["label"]: row["ours"] for row in summary("bottlenecks")}
    assert all(ours[f"{third}: attention binds, %"] == 0 for third in ("early", "middle", "late"))
    shares = [f"{ours[f'{third}: feed-forward binds, %']:.0f}" for third in ("early", "middle", "late")]
    assert f"the feed-forward part binds in {', '.join(shares[:2])} and {shares[2]} % of the evaluations" in TEXT
    first, total = (sum(row[key] for row in found) for key in ("outputs", "evaluations"))
    assert f"the output has the smaller radius of the two others in {first} of {total} evaluations" in TEXT


def test_the_text_beside_the_zeros_is_of_their_records():
    found = rows("ghosts")
    assert "Every zero is certified" in TEXT
    assert not any(row["unknown"] for row in found)
    exact = [row["exact"] for row in found]
    assert min(exact) > 1
    assert f"mostly little farther: {ends(exact, '.2f')} times" in TEXT
    assert f"once a model has learned, up to {max(row['sample'] for row in found):.0f} times" in TEXT
    medians = {row["label"]: row["bound"] for row in summary("ghosts")}
    for name, text in (
        ("digits-vit", "transformer from"),
        ("digits-mlp", "perceptron from"),
        ("linear", "softmax from"),
    ):
        first, last = (f"{medians[f'{name}, {steps} steps']:.2g}" for steps in (0, 300))
        assert f"{text} {first} to {last}" in TEXT
    assert f"for {sum(row['pair'] > 1 for row in found)} of the {len(found)} batches" in TEXT


def test_the_text_beside_the_activations_is_of_their_records():
    found = [{**row, "limit": number(row["limit"])} for row in rows("activations")]
    smooth = [row["limit"] for row in found if math.isfinite(row["limit"]) and row["architecture"] != "relu"]
    kinks = [row["limit"] for row in found if row["architecture"] == "relu"]
    assert min(smooth) > 1 > max(kinks)
    assert f"at r = {ends(smooth, '.2g')}, so that" in TEXT
    assert f"kinks lie at r = {min(kinks):.2g} to {max(kinks):#.2g}" in TEXT
    late = [row for row in found if row["steps"] == 300]
    of_relu, of_others = ([row["onset"] for row in late if (row["architecture"] == "relu") == relu] for relu in (1, 0))
    assert (
        f"doubles at r = {ends(of_relu, '#.2g')} after 300 steps, that of the others at {ends(of_others, '.2g')}"
        in TEXT
    )
    in_r = log_spread(row["onset"] for row in found)
    in_smaller = log_spread(row["onset"] / min(1.0, row["limit"]) for row in found)
    assert f"over all {len(found)} runs is {in_r:.2f}, in units of the smaller of both radii {in_smaller:.2f}" in TEXT


@pytest.mark.parametrize("study", [*STUDIES, *TRAINED, *TRACKS])
def test_a_record_is_a_run_of_the_study_as_it_is(study, tmp_path):
    """With its own settings, on the seeds of the page; figures come of it by `safestep report`."""
    unpack(study, tmp_path)
    record, experiment = read_results(tmp_path), find(study)
    settings = experiment.settings.of_record(record["settings"])
    assert settings == experiment.settings()
    seeds = {"temperature": [*range(5)], "rate-spikes": [0, 1, 2], "resnet": [0, 1, 2], **TRACKS}
    assert record["seeds"] == seeds.get(study, [7, 8])
    planned = {run.key for run in experiment.runs(settings, record["seeds"])}
    assert planned == {(row["label"], row["seed"]) for row in record["rows"]}
    draw(tmp_path)
    assert {file.stem for file in (tmp_path / "figures").iterdir()} == set(experiment.own_figures)


@pytest.mark.parametrize("study", [*STUDIES, "activations"])
def test_the_courses_that_figures_draw_are_those_of_the_rows(study, tmp_path):
    unpack(study, tmp_path)
    onsets: dict[tuple[str, int], list[float]] = {}
    level = results(study)["settings"]["inflation"]
    for line in (tmp_path / "records.jsonl").read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        onsets.setdefault((one["label"], one["seed"]), []).append(crossing(one["r"], one["inflation"], level))
    assert len(onsets) == len(rows(study))
    for row in rows(study):
        assert onsets[row["label"], row["seed"]] == pytest.approx([row["onset"], *row["onsets"]], rel=5e-3)


def test_the_jumps_of_the_courses_are_those_of_the_rows(tmp_path):
    unpack("resnet", tmp_path)
    lines = map(json.loads, (tmp_path / "records.jsonl").read_text(encoding="utf-8").splitlines())
    found = {(line["label"], line["seed"]): len(jumps(line["loss"])[0]) for line in lines}
    assert found == {(row["label"], row["seed"]): row["jumps"] for row in rows("resnet") if row["rate"]}


def test_the_page_says_how_to_unpack_them(tmp_path):
    (tmp_path / "docs").symlink_to(RECORDS.parents[1])
    (block,) = re.findall(r"```sh\n(mkdir .*?)safestep report runs/temperature\n```", PAGE, flags=re.DOTALL)
    subprocess.run(["sh", "-ec", block], cwd=tmp_path, check=True)
    unpack("temperature", tmp_path)
    for name in ("results.json", "records.jsonl"):
        assert (tmp_path / "runs" / "temperature" / name).read_bytes() == (tmp_path / name).read_bytes()


def unpack(study: str, directory: Path) -> None:
    """Put a record where a run of its study would have written it."""
    for name, packed in (("results.json", "json"), ("records.jsonl", "jsonl")):
        packing = RECORDS / f"{study}.{packed}.gz"
        if packing.is_file():
            (directory / name).write_bytes(gzip.decompress(packing.read_bytes()))
