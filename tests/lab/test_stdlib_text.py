"""The standard library as text: one alphabet for every Python, labels that follow, a clear error without it."""

from __future__ import annotations

import string

import pytest
import torch

from safestep.lab.stdlib_text import (
    CHARACTERS,
    HELD_OUT,
    TRAINING,
    StandardLibraryError,
    classes,
    load_library,
    load_text,
    windows,
)


def test_the_alphabet_is_printable_ascii_and_the_end_of_a_line():
    assert len(CHARACTERS) == len(set(CHARACTERS)) == 96
    assert set(CHARACTERS) == set(string.printable) - set("\t\r\x0b\x0c")


def test_it_is_python_and_no_held_out_line_is_learned():
    train, held_out = load_text()
    words = "".join(CHARACTERS[k] for k in train.tolist())
    assert "def heappush(heap, item):\n" in words
    assert "class TextWrapper" not in words
    assert "class TextWrapper" in "".join(CHARACTERS[k] for k in held_out.tolist())
    assert not set(TRAINING) & set(HELD_OUT)
    assert train.dtype == torch.int64
    assert len(train) > 100_000
    assert len(held_out) > 10_000


def test_what_is_not_in_the_alphabet_becomes_a_question_mark():
    assert classes("é\t\n?").tolist() == [CHARACTERS.index(character) for character in "??\n?"]


def test_labels_are_the_characters_that_follow():
    text = torch.arange(100, 120)
    inputs, labels = windows(text, torch.tensor([0, 7, 12]), 7)
    assert inputs.shape == labels.shape == (3, 7)
    assert torch.equal(labels, inputs + 1)
    assert inputs[:, 0].tolist() == [100, 107, 112]


def test_a_python_without_its_source_is_told(tmp_path):
    with pytest.raises(StandardLibraryError, match=r"cannot read .*bisect\.py of the standard .*source as files"):
        load_text(tmp_path)


def test_of_the_whole_library_one_module_in_ten_is_kept_and_what_is_no_part_of_it_left_out(tmp_path):
    for number in range(21):
        (tmp_path / f"m{number:02}.py").write_text(f"m{number:02}\n", encoding="utf-8")
    for folder in ("site-packages", "test"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "other.py").write_text("other", encoding="utf-8")
    train, held_out = ("".join(CHARACTERS[k] for k in text).split() for text in load_library(tmp_path))
    assert held_out == ["m00", "m10", "m20"]
    assert train == [f"m{number:02}" for number in range(21) if number % 10]
    with pytest.raises(StandardLibraryError, match=r"expected the standard library's source in .*saw 0 modules"):
        load_library(tmp_path / "test" / "nothing")


def test_the_library_of_this_python_is_large():
    train, held_out = load_library()
    assert len(train) > 5e6
    assert 0.02 < len(held_out) / len(train) < 0.5
