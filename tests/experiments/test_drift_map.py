"""The drift map as an experiment: carried out, kept, resumed, drawn and told."""

from __future__ import annotations

import json
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

EXPERIMENT = find("drift-map")
SETTINGS = EXPERIMENT.settings(side=9, steps=40)


def carry_out(path, seeds=(7,)):
    with RunDirectory(path) as directory:
        session = Session(directory, EXPERIMENT, SETTINGS, seeds)
        missing = [run.key for run in session.missing]
        for _ in session.run(jobs=1):
            pass
    return missing


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "drift-map"
    carry_out(directory)
    draw(directory)
    write_page(directory)
    return directory


def test_the_defaults_are_the_protocol_of_the_note():
    settings = EXPERIMENT.settings()
    rates, gains = settings.rate_axis, settings.gain_axis
    assert (len(rates), rates[0].item(), rates[-1].item()) == (41, pytest.approx(0.01), pytest.approx(10**0.3))
    assert (len(gains), gains[0].item(), gains[-1].item()) == (41, pytest.approx(1.0), pytest.approx(4.0))
    assert (gains[1:] / gains[:-1]).numpy() == pytest.approx(4 ** (1 / 40))
    assert (settings.chi, settings.steps, settings.limit, settings.data_seed) == (1.0, 1000, 100.0, 42)


@pytest.mark.parametrize(
    "changes",
    [
        {"chi": 2.0},
        {"decades": (0.3, -2.0)},
        {"gains": (0.0, 4.0)},
        {"side": 1},
        {"steps": 0},
        {"limit": 0.0},
        {"laws": ("secant-3",)},
        {"laws": ()},
    ],
)
def test_settings_that_cannot_be_used_are_refused(changes):
    with pytest.raises(SettingError, match=f"{next(iter(changes))}="):
        replace(EXPERIMENT.settings(), **changes)


def test_every_cell_is_recorded_and_the_row_is_what_the_cells_say(whole):
    results, (records, cut) = read_results(whole), read_records(whole)
    assert cut == []
    assert [row["law"] for row in results["rows"]] == list(SETTINGS.laws)
    for row in results["rows"]:
        flags = [flag for record in records if key_of(record) == key_of(row) for flag in record["diverged"]]
        assert len(flags) == row["cells"] == 81
        assert row["share_diverged"] == pytest.approx(sum(flags) / 81)


def test_what_is_there_is_not_run_again(whole):
    assert carry_out(whole) == []


def test_the_figure_says_what_the_rows_say(whole):
    results = read_results(whole)
    with Image.open(whole / "figures" / "drift_maps.png") as image:
        said = f"{image.text['Title']} {image.text['Description']}".replace("\N{NO-BREAK SPACE}", " ")
    for row in results["rows"]:
        assert f"{row['label'].lower()}: {100 * row['share_diverged']:.1f}%" in said.lower()


def test_the_page_is_whole_and_the_figure_has_words(whole):
    text = (whole / "report.html").read_text(encoding="utf-8")
    assert "This page is incomplete" not in text
    assert '<figure id="drift_maps">' in text
    assert "unprotected first step" in EXPERIMENT.words.captions["drift_maps"]


def test_a_killed_run_is_told_as_far_as_it_went_and_continued(whole, tmp_path):
    results = read_results(whole)
    lines = (whole / "records.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "records.jsonl").write_text("".join(lines[:12]) + lines[12][:30])
    killed = {**results, "rows": results["rows"][:1], "finished": None}
    (tmp_path / "results.json").write_text(json.dumps(killed))
    draw(tmp_path)
    text = write_page(tmp_path).read_text(encoding="utf-8")
    assert "rows so far: 1" in text
    assert "left out: 1 (line 13: cut short" in text
    assert len(carry_out(tmp_path)) == len(SETTINGS.laws) - 1
    assert read_results(tmp_path)["rows"] == results["rows"]


def test_over_starts_the_spread_is_told():
    row = {"label": "secant, order 0", "law": "secant-0", "share_beyond": 0.281}
    rows = [row | {"seed": seed, "share_diverged": share} for seed, share in enumerate((0.02, 0.12, 0.05))]
    (summary,) = EXPERIMENT.summarise(rows)
    assert (summary["least"], summary["median"], summary["most"], summary["seeds"]) == (0.02, 0.05, 0.12, 3)
    assert EXPERIMENT.summarise([]) == []
