"""docs/trainers.md: every example runs, and the table is what these tests do."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import os
import sys
from pathlib import Path

import pytest

import safestep

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from frameworks.page import BEGIN, PAGE, ROWS, blocks, table

MODULES = {
    "Ignite": "ignite",
    "Accelerate": "accelerate",
    "PEFT": "peft",
    "TRL": "trl",
    "Lightning": "lightning",
    "Containers of optimizers": "torch",
}
EXAMPLES = blocks()


def missing(name: str) -> bool:
    return importlib.util.find_spec(MODULES.get(name, name)) is None


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name])
@pytest.mark.filterwarnings("ignore", "error::safestep.SafestepWarning")
def test_every_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing(name):
        pytest.skip(f"{name} is not installed: make integrations")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for part in (EXAMPLES[""], EXAMPLES[name]):
        exec(compile(part, f"{PAGE.name}, {name or 'beginning'}", "exec"), scope)


def test_every_framework_has_an_example() -> None:
    assert [row.name for row in ROWS] == [name for name in EXAMPLES if name]
    assert all("safestep" in text for text in EXAMPLES.values())


def test_the_table_is_made_from_the_tests() -> None:
    if absent := [row.name for row in ROWS if missing(row.name)]:
        pytest.skip(f"not installed: {', '.join(absent)}: make integrations")
    assert table() in PAGE.read_text(encoding="utf-8").partition(BEGIN)[2], "renew: python tests/frameworks"


@pytest.mark.parametrize("name", ["transformers", "lightning"])
def test_the_examples_in_docstrings_run(name: str) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed: make integrations")
    tried = doctest.testmod(importlib.import_module(f"safestep.integrations.{name}"))
    assert tried.attempted > 0
    assert not tried.failed


@pytest.mark.parametrize("name", ["transformers", "lightning"])
def test_without_the_framework_the_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = f"safestep.integrations.{name}"
    monkeypatch.delitem(sys.modules, whole, raising=False)
    for module in (name, f"{name}.pytorch"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(safestep.errors.MissingExtraError, match=f"extra '{name}'"):
        importlib.import_module(whole)
