"""The examples of the docstrings and of docs/jax.md run, in float32 as jax has it by default."""

from __future__ import annotations

import contextlib
import doctest
import importlib.util
import math
import pkgutil
import re
import tempfile
from pathlib import Path

import jax
import optax

import safestep.integrations.optax as package

ROOT = Path(__file__).parents[3]
PAGE, EXAMPLE = ROOT / "docs" / "jax.md", ROOT / "examples" / "optax_cost.py"


def check_docstrings():
    with jax.enable_x64(False):
        modules = [f"{package.__name__}.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
        results = [doctest.testmod(importlib.import_module(name)) for name in modules]
    assert not any(result.failed for result in results), "the process printed them"
    assert sum(result.attempted for result in results) > 10


def check_what_it_costs_is_told():
    spec = importlib.util.spec_from_file_location("optax_cost", EXAMPLE)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for limit in script.LIMITS.values():
        tx = optax.chain(optax.sgd(0.1), script.cap(script.logits_fn, limit=limit))
        assert 0.0 < script.stepper(tx, (3, 4), 4)() < math.inf


def check_page():
    scope: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    with jax.enable_x64(False), tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), scope)
    assert len(blocks) == 8
