"""optax: every check of optax_checks/ in a process of its own, with float64 and two devices; what holds without jax."""

from __future__ import annotations

from pathlib import Path

import pytest

from processes import FAST_COMPILING, checks_in, run

CHECKS = Path(__file__).parent / "optax_checks"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", checks_in(CHECKS))
def test_in_optax(name, outcomes, pytestconfig):
    settings = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1", **FAST_COMPILING}
    settings["XLA_FLAGS"] += " --xla_force_host_platform_device_count=2"
    settings["JAX_COMPILATION_CACHE_DIR"] = str(pytestconfig.cache.mkdir("jax"))
    found = outcomes("optax", CHECKS, **settings)
    assert found[name] == "", found[name]


@pytest.mark.parametrize("missing", ["optax", "jax"])
def test_a_missing_package_is_named(missing):
    code = f"""
import sys
sys.modules["{missing}"] = None
try:
    import safestep.integrations.optax
except ImportError as error:
    print(type(error).__name__, error)
"""
    said = run("-c", code)
    assert said.startswith("MissingExtraError")
    assert f"needs {missing}, which is not installed: install safestep with its extra 'optax'" in said
