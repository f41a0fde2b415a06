"""docs/autopsy.md: its example says what the page shows, in the same sentences and nearly the same numbers."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from safestep.tools.autopsy import Cause, autopsy

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "autopsy.md").read_text(encoding="utf-8")
NUMBER = r"\d[\d.]*"


def test_the_example_says_what_the_page_shows():
    (shown,) = re.findall(r"```text\n(.*?)\npage: ", PAGE, re.DOTALL)
    example = runpy.run_path(str(ROOT / "examples" / "post_mortem.py"))
    told = str(autopsy(example["setup"](example["train"]("layer"))))
    assert re.sub(NUMBER, "n", told) == re.sub(NUMBER, "n", shown)
    numbers = [[float(one.rstrip(".")) for one in re.findall(NUMBER, text)] for text in (told, shown)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.05)


def test_every_cause_is_explained():
    assert all(f"`{cause}`" in PAGE for cause in Cause)
