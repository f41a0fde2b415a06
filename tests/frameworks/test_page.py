"""docs/trainers.md: every example runs, and the table is what these tests do."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import os
import subprocess
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


QUIETLY = """
import warnings, frameworks, safestep
warnings.simplefilter("ignore")
warnings.simplefilter("error", safestep.SafestepWarning)
"""
AGAIN = """
class Interrupts(Callback):
    def after_batch(self):
        raise KeyboardInterrupt
with learner.no_bar(), learner.no_logging():
    try:
        learner.fit(1, 3.0, cbs=[Interrupts()])
    except KeyboardInterrupt:
        learner.fit(1, 3.0)
assert len(learner.guard.history) == 8
"""


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name])
def test_every_example_runs(name: str, tmp_path: Path) -> None:
    """Each in a process of its own: what another one imported is not there."""
    if missing(name):
        pytest.skip(f"{name} is not installed: make integrations")
    program = "\n".join([QUIETLY, EXAMPLES[""], EXAMPLES[name], AGAIN if name == "fastai" else ""])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


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
