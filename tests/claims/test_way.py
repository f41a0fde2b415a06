"""The way of one step in CONTRIBUTING.md is the one that a step takes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import safestep
from zoo.loop import Loop

ROOT = Path(__file__).parents[2]
PACKAGE = Path(safestep.__file__).parent


def listed():
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## A step, and who measures it")[2]
    lines = re.findall(r"^\d+\. .*$", section.partition("\n## ")[0], flags=re.MULTILINE)
    return lines, re.findall(r"`([a-z_]+/[a-z_]+\.[a-z_]+)`", "\n".join(lines))


def test_a_step_goes_the_way_that_is_told():
    loop, calls = Loop(lr=100.0).steps(2), []

    def note(frame, event, argument):
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(str(PACKAGE)):
            calls.append(f"{Path(file).relative_to(PACKAGE).with_suffix('').as_posix()}.{frame.f_code.co_name}")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        loop.step()
    finally:
        sys.setprofile(before)
    assert loop.reports[-1].method == "CurvatureRadius: probe/train"
    assert loop.reports[-1].scale < 1.0
    lines, names = listed()
    assert len(lines) <= 15
    assert len(names) > 15
    assert not set(names) - set(calls), "not called"
    first = [calls.index(name) for name in names]
    order = [name for _, name in sorted(zip(first, names, strict=True))]
    assert names == order, "\n".join(order)
