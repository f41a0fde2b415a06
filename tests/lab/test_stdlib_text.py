"""The standard library as text: one alphabet for every Python, labels that follow, a clear error without it."""

from __future__ import annotations

import string

import pytest
import torch

from safestep.lab.stdlib_text import CHARACTERS, HELD_OUT, TRAINING, StandardLibraryError, classes, load_text, windows


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
