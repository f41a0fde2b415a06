"""Figures from the records alone: the files, their bytes, their words, and runs that are not whole."""

from __future__ import annotations

import json

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from experiments.made_up import run_directory
from safestep.errors import RunDirectoryError
from safestep.experiments.report.figures import draw

SINGLE = ["test_accuracy", "training_loss", "effective_lr", "largest_ratio"]


def test_one_seed_gives_the_four_pictures_and_the_overview(tmp_path):
    files = draw(run_directory(tmp_path))
    assert [file.stem for file in files] == [*SINGLE, "overview"]
    assert all(file.parent == tmp_path / "figures" and file.suffix == ".png" for file in files)
    assert sorted(tmp_path.glob("figures/*")) == sorted(files)  # nothing half-written is left


def test_several_seeds_have_their_accuracies_too(tmp_path):
    files = draw(run_directory(tmp_path, seeds=(0, 1, 2)))
    assert [file.stem for file in files] == [*SINGLE, "accuracy_over_seeds", "overview"]


def test_no_picture_is_empty_and_each_is_sharp_on_a_phone(tmp_path):
    for file in draw(run_directory(tmp_path, seeds=(0, 1))):
        with Image.open(file) as image:
            assert image.width >= 2 * 360
            pixels = np.asarray(image.convert("RGB"))
        assert (pixels != 255).any(axis=2).mean() > 0.02
        middle = pixels[len(pixels) // 3 :, : pixels.shape[1] // 2]
        assert len(np.unique(middle.reshape(-1, 3), axis=0)) > 10


def test_the_same_records_give_the_same_bytes_whatever_the_users_settings(tmp_path):
    directory = run_directory(tmp_path)
    first = {file.name: file.read_bytes() for file in draw(directory)}
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.dpi": 17, "lines.linewidth": 9}):
        second = {file.name: file.read_bytes() for file in draw(directory)}
        assert mpl.rcParams["font.size"] == 30
    assert first == second


def test_each_file_says_what_it_shows(tmp_path):
    words = {}
    for file in draw(run_directory(tmp_path)):
        with Image.open(file) as image:
            words[file.stem] = (image.text["Title"], image.text["Description"])
    curves = "fixed 0.5, fixed 5.0 (diverged), capped 0.5, capped 5.0, pin, with marks where one leaves the frame"
    assert words["training_loss"] == ("Training loss", f"mean loss against epoch; {curves}")
    assert words["overview"][0] == "digits-sgd"
    assert words["overview"][1].startswith("Training loss; Test accuracy; ")


def test_the_settings_say_where_the_target_is(tmp_path):
    directory = run_directory(tmp_path)
    before = draw(directory)[3].read_bytes()
    results = json.loads((directory / "results.json").read_text())
    results["settings"]["target"] = 0.5
    (directory / "results.json").write_text(json.dumps(results))
    assert draw(directory)[3].read_bytes() != before


def test_an_interrupted_run_is_drawn_as_far_as_it_went(tmp_path):
    directory = run_directory(tmp_path, rows=[], summary=[], finished=None)
    records = directory / "records.jsonl"
    records.write_bytes(records.read_bytes()[:1500])  # in the middle of a line
    assert [file.stem for file in draw(directory)] == [*SINGLE, "overview"]


def test_a_run_without_records_gives_no_figures(tmp_path):
    directory = run_directory(tmp_path, rows=[], summary=[], finished=None)
    (directory / "records.jsonl").unlink()
    assert draw(directory) == []


def test_what_the_records_do_not_hold_is_not_drawn(tmp_path):
    directory = run_directory(tmp_path)
    lines = [json.loads(line) for line in (directory / "records.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in line.items() if key not in {"max_r", "test_acc"}} for line in lines]
    (directory / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    assert [file.stem for file in draw(directory)] == ["training_loss", "effective_lr"]


def test_what_is_not_drawn_any_more_is_removed_and_nothing_else(tmp_path):
    directory = run_directory(tmp_path, seeds=(0, 1))
    draw(directory)
    (directory / "figures" / "zzz.png").write_bytes(b"of the user")
    results = json.loads((directory / "results.json").read_text())
    results["rows"] = [row for row in results["rows"] if row["seed"] == 0]
    (directory / "results.json").write_text(json.dumps(results))
    draw(directory)
    assert sorted(file.stem for file in directory.glob("figures/*")) == sorted([*SINGLE, "overview", "zzz"])
    (directory / "records.jsonl").unlink()
    assert draw(directory) == []
    assert [file.name for file in directory.glob("figures/*")] == ["zzz.png"]


def test_no_run_is_an_error_that_says_what_was_expected(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"no run in .*expected results\.json"):
        draw(tmp_path)


def test_a_place_that_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path):
    directory = run_directory(tmp_path)
    (directory / "figures").write_text("in the way")
    with pytest.raises(RunDirectoryError, match=r"cannot write to .*figures.*safestep report"):
        draw(directory)
