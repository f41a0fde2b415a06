"""`safestep bench`: what it leaves behind, what it prints, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from safestep.bench import plan
from safestep.bench.bench_tables import COLUMNS
from safestep.bench.cases import cases
from safestep.bench.contestants import AGAIN, CURVATURE, METHODS, PLAIN, entries
from safestep.cli import app as cli

TIMES = ("ratio_median", "ratio_low", "ratio_high", "ratio_mean", "ms_median", "added_us", "rows_per_ms")
PEAKS = ("peak_bytes", "extra_peak_bytes", "peak_ratio", "first_peak_ratio")
ROW = ("model", "about", "method", "situation", *TIMES, *PEAKS, "statuses", "methods", "ratios", "flag")


def bench(*words):
    return bench_alone(*words, "--threads", "1")


def bench_alone(*words):
    return CliRunner().invoke(cli.app, ["bench", *words])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "overhead"
    told = bench("overhead", "--quick", "--models", "mlp,wide-head", "--out", str(path))
    assert told.exit_code == 0, told.output
    return path, told, json.loads((path / "results.json").read_text())


def test_results_are_complete(run):
    _, _, results = run
    assert results["bench"] == "overhead"
    assert results["settings"] == {
        "models": ["mlp", "wide-head"],
        "rounds": 2,
        "steps": 2,
        "warmup": 4,
        "device": "cpu",
        "threads": 1,
        "quick": True,
    }
    assert results["environment"]["torch"] == torch.__version__
    assert results["environment"]["device"].startswith("CPU: ")
    assert results["environment"]["began"] <= results["finished"]
    assert all(row.keys() == set(ROW) for row in results["rows"])
    found = {(row["model"], row["method"], row["situation"]) for row in results["rows"]}
    assert found == {
        (model, entry.method, entry.situation)
        for model in ("mlp", "wide-head")
        for entry in entries()
        if (model, entry.method) != ("wide-head", AGAIN)
    }


def test_the_table_holds_every_row_and_no_cut_cell(run):
    _, told, results = run
    lines = told.stdout.splitlines()
    assert "…" not in told.stdout
    for model in ("mlp", "wide-head"):
        start = next(i for i, line in enumerate(lines) if line.startswith(cases(quick=True)[model].about))
        rows = lines[start + 3 :]
        for name in (f"{method}, {situation}" for method in METHODS for situation in ("inside", "capped")):
            assert any(line.startswith(name) for line in rows)
    widest = next(row for row in results["rows"] if row["method"] == "exact")
    assert f"{widest['ms_median']:.3g}" in told.stdout


def test_the_tables_for_a_page_say_the_same(run):
    path, told, results = run
    lines = (path / "tables.md").read_text().splitlines()
    assert f"written: {path / 'tables.md'}" in told.stdout
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert len(cells) == len(results["rows"]) + 2  # headings of two tables
    assert {len(row) for row in cells} == {len(COLUMNS)}
    for row in cells[1 : 1 + len(entries())]:
        assert all(cell in told.stdout for cell in row)


def test_figures_are_drawn(run):
    path, told, _ = run
    for name in ("overhead", "memory"):
        file = path / "figures" / f"{name}.png"
        assert file.read_bytes().startswith(b"\x89PNG")
        assert f"written: {file}" in told.stdout


def test_scale_measures_what_axes_have_in_common_once(tmp_path, monkeypatch):
    asked = []
    measure = plan.measure

    def counted(case, *arguments):
        asked.append(case.about)
        return measure(case, *arguments)

    monkeypatch.setattr(plan, "measure", counted)
    monkeypatch.setattr(plan, "on_scale", lambda: [e for e in entries() if e.situation == "inside"][:3])
    told = bench("scale", "--quick", "--axes", "classes,batch", "--rounds", "1", "--out", str(tmp_path))
    assert told.exit_code == 0, told.output
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(asked) == len(set(asked)) == 3
    assert [(row["axis"], row["size"]) for row in results["rows"]][::3] == [
        ("classes", 128),
        ("classes", 256),
        ("batch", 1),
        ("batch", 2),
    ]
    assert results["settings"]["rounds"] == 1
    assert (tmp_path / "figures" / "scale.png").exists()
    assert told.stdout.count("· plain step ") == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["overhead", "--models", "mpl"], "no model 'mpl'. Did you mean mlp? There are: mlp, gpt, resnet"),
        (["overhead", "--models", "mlp,"], "no model ''"),
        (["scale", "--axes", "width"], "no axis 'width'"),
        (["overhead", "--device", "warp"], "device=warp: expected a device that torch finds here"),
        (["overhead", "--device", "meta"], "device=meta: expected"),
        (["scale", "--out", "."], "--out is the current directory"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = bench(*words, "--quick")
    assert told.exit_code == 2, told.output
    assert told.stderr.startswith(f"safestep: {message}")
    assert told.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_told(tmp_path):
    told = bench("overhead", "--device", "cuda", "--quick", "--out", str(tmp_path / "out"))
    assert told.exit_code == 2
    assert told.stderr.startswith("safestep: device=cuda: expected a device that torch finds here")


@pytest.mark.parametrize("content", ['{"experiment": "digits-sgd"}', "[]", "not json"])
def test_the_results_of_something_else_stay(content, tmp_path):
    (tmp_path / "results.json").write_text(content)
    told = bench("scale", "--quick", "--out", str(tmp_path))
    assert told.exit_code == 2
    assert "was not written by `safestep bench`" in told.stderr
    assert (tmp_path / "results.json").read_text() == content


def test_an_interrupt_keeps_what_was_measured(tmp_path, monkeypatch):
    def interrupted(*arguments, **changes):
        yield [dict.fromkeys(ROW) | {"about": "a tiny thing", "method": "exact", "flag": "", "methods": {}}]
        raise KeyboardInterrupt

    threads = torch.get_num_threads()
    monkeypatch.setattr(plan, "overhead", interrupted)
    told = CliRunner().invoke(cli.app, ["bench", "overhead", "--threads", "2", "--out", str(tmp_path)])
    assert (told.exit_code, told.stderr) == (130, "safestep: interrupted\n")
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["about"] for row in results["rows"]] == ["a tiny thing"]
    assert results["finished"] is None
    assert torch.get_num_threads() == threads


def test_a_flag_is_told(tmp_path, monkeypatch):
    row = dict.fromkeys(ROW) | {"about": "a tiny thing", "method": "exact", "situation": "inside", "methods": {}}
    row["flag"] = "expected 2 steps inside"
    monkeypatch.setattr(plan, "overhead", lambda *arguments, **changes: iter([[row]]))
    told = bench("overhead", "--out", str(tmp_path))
    assert "not what it should be: a tiny thing, exact, inside: expected 2 steps inside" in told.stdout


def test_what_is_fixed_is_told_in_microseconds(tmp_path):
    told = bench_alone("fixed", "--quick", "--out", str(tmp_path / "fixed"))
    assert told.exit_code == 0, told.output
    results = json.loads((tmp_path / "fixed" / "results.json").read_text())
    assert results["settings"]["threads"] == 1
    assert {row["model"] for row in results["rows"]} == {"eight", "thousand"}
    assert {row["method"] for row in results["rows"]} >= {PLAIN, CURVATURE, *METHODS}
    for row in results["rows"]:
        assert (row["added_us"] == 0.0) is (row["method"] == PLAIN)
        assert row["peak_bytes"] is None
    assert "µs added" in (tmp_path / "fixed" / "tables.md").read_text(encoding="utf-8")
