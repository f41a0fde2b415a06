"""The examples of the docstrings and of docs/jax.md run, in float32 as jax has it by default."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import pkgutil
import re
import tempfile
from pathlib import Path

import jax

import safestep.integrations.optax as package

PAGE = Path(__file__).parents[3] / "docs" / "jax.md"


def check_docstrings():
    with jax.enable_x64(False):
        modules = [f"{package.__name__}.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
        results = [doctest.testmod(importlib.import_module(name)) for name in modules]
    assert not any(result.failed for result in results), "the process printed them"
    assert sum(result.attempted for result in results) > 10


def check_page():
    scope: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    with jax.enable_x64(False), tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), scope)
    assert len(blocks) == 8
