"""The examples of the docstrings and of docs/keras.md run on either backend."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import tempfile
from pathlib import Path

import safestep.integrations.keras as package

PAGE = Path(__file__).parents[3] / "docs" / "keras.md"


def check_docstrings():
    tried = 0
    for module in pkgutil.iter_modules(package.__path__):
        if module.name == "on_jax" and os.environ["KERAS_BACKEND"] != "jax":
            continue
        result = doctest.testmod(importlib.import_module(f"{package.__name__}.{module.name}"))
        assert result.failed == 0, f"{result.failed} of {module.name}; the process printed them"
        tried += result.attempted
    assert tried > 20


def check_page():
    scope: dict[str, object] = {}
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
                exec(compile(block, str(PAGE), "exec"), scope)
        finally:
            os.chdir(here)
    assert scope
