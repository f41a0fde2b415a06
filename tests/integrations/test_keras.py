"""Keras: every check of keras_checks/ on both backends, in one process for each, and what holds without Keras."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).parent / "keras_checks"
BACKENDS = ("jax", "torch")
_FAST_COMPILING = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
"""Most of the time goes into compiling small models that then run for a moment: what is compiled once is kept."""
NAMES = [
    f"{file.stem}.{node.name.removeprefix('check_')}"
    for file in sorted(CHECKS.glob("*.py"))
    for node in ast.parse(file.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
]


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory, pytestconfig):
    """Return a function from a backend to what its checks found; each process runs once, whoever asks first."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    folder = tmp_path_factory.getbasetemp().parent if run else tmp_path_factory.mktemp("keras")

    def of(backend):
        out = folder / f"keras-{backend}-{run}.json"
        with out.with_suffix(".lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not out.exists():
                settings = {"KERAS_BACKEND": backend, "KERAS_HOME": str(folder / "home"), "JAX_PLATFORMS": "cpu"}
                settings |= {**_FAST_COMPILING, "JAX_COMPILATION_CACHE_DIR": str(pytestconfig.cache.mkdir("jax"))}
                done = subprocess.run(
                    [sys.executable, str(CHECKS), str(out)],
                    env=os.environ | settings, capture_output=True, text=True, check=False,
                )  # fmt: skip
                assert out.exists(), done.stderr
        return json.loads(out.read_text(encoding="utf-8"))

    return of


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_in_keras(name, backend, outcomes):
    found = outcomes(backend)
    assert name in found, f"the process ended before {name}"
    assert found[name] == "", found[name]


def test_safestep_and_its_integrations_do_not_import_keras():
    code = "import sys, safestep, safestep.integrations; print('keras' in sys.modules, 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_missing_keras_is_named():
    code = "import sys; sys.modules['keras'] = None; import safestep.integrations.keras"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtraError" in done.stderr
    assert "needs keras, which is not installed: install safestep with its extra 'keras'" in done.stderr
