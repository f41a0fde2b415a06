"""Where a picture goes: whole or not at all, and never over what nobody named."""

from __future__ import annotations

import pytest

from safestep.experiments.runner.settings import SettingError
from safestep.simulation.outfile import check_target, write_new, write_over


def write(text):
    return lambda path: path.write_text(text)


def fails(path):
    path.write_text("half")
    raise OSError("no space left")


def test_a_new_file_takes_a_name_that_no_file_has(tmp_path):
    folder = tmp_path / "runs" / "simulate"
    paths = [write_new(folder, "plane", ".png", write(text)) for text in "abc"]
    assert [path.name for path in paths] == ["plane.png", "plane-2.png", "plane-3.png"]
    assert [path.read_text() for path in paths] == ["a", "b", "c"]
    assert sorted(folder.iterdir()) == sorted(paths)


def test_a_named_file_is_replaced_whole(tmp_path):
    path = tmp_path / "made" / "picture.svg"
    write_over(path, write("old"))
    assert write_over(path, write("new")) == path
    assert path.read_text() == "new"
    with pytest.raises(OSError, match="no space left"):
        write_over(path, fails)
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_new_file_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="no space left"):
        write_new(tmp_path, "plane", ".png", fails)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_written_is_told(tmp_path):
    check_target(tmp_path / "a.PNG", "--out", (".png",))
    with pytest.raises(SettingError, match=r"--out .*a.txt: expected a name that ends in .png, .svg"):
        check_target(tmp_path / "a.txt", "--out", (".png", ".svg"))
    with pytest.raises(SettingError, match="is a directory"):
        check_target(tmp_path, "--out", (".png",))


def test_a_place_where_nothing_can_be_written_is_told_before_the_work(tmp_path, monkeypatch):
    check_target(tmp_path / "not" / "yet" / "a.png", "--out", (".png",))
    assert not (tmp_path / "not").exists()
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(SettingError, match=r"nothing can be written to .*file; expected a directory"):
        check_target(file / "a.png", "--out", (".png",))
    monkeypatch.setattr("os.access", lambda path, mode: False)  # as in a directory of somebody else's
    with pytest.raises(SettingError, match="nothing can be written"):
        check_target(tmp_path / "a.png", "--out", (".png",))
