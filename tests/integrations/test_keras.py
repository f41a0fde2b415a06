"""Keras: every check of keras_checks/ on both backends, in one process for each, and what holds without Keras."""

from __future__ import annotations

from pathlib import Path

import pytest

from processes import FAST_COMPILING, checks_in, run

CHECKS = Path(__file__).parent / "keras_checks"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("name", checks_in(CHECKS))
def test_in_keras(name, backend, outcomes, tmp_path_factory, pytestconfig):
    home, kept = str(tmp_path_factory.getbasetemp() / "keras-home"), str(pytestconfig.cache.mkdir("jax"))
    settings = {"KERAS_BACKEND": backend, "KERAS_HOME": home, "JAX_PLATFORMS": "cpu", **FAST_COMPILING}
    settings["JAX_COMPILATION_CACHE_DIR"] = kept
    found = outcomes(f"keras-{backend}", CHECKS, **settings)
    assert found[name] == "", found[name]


def test_safestep_and_its_integrations_do_not_import_keras():
    out = run("-c", "import sys, safestep, safestep.integrations; print('keras' in sys.modules, 'jax' in sys.modules)")
    assert out.split() == ["False", "False"]


def test_a_missing_keras_is_named():
    code = """
import sys
sys.modules["keras"] = None
try:
    import safestep.integrations.keras
except ImportError as error:
    print(type(error).__name__, error)
"""
    said = run("-c", code)
    assert said.startswith("MissingExtraError")
    assert "needs keras, which is not installed: install safestep with its extra 'keras'" in said
