"""The sdist: all of the repository that is needed to test and to build again, and tests that run from it."""

from __future__ import annotations

import re
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICK = ("tests/claims/test_lowest.py", "tests/policy/test_policies.py", "tests/logs/test_every.py")
FOUND = "import importlib.util; print(importlib.util.find_spec('safestep').origin)"


@pytest.fixture(scope="module")
def unpacked(sdist, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as file:
        file.extractall(place, filter="data")
    return next(place.iterdir())


def test_it_holds_every_file_that_is_kept(unpacked):
    named = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    kept = [ROOT / name.strip("/") for name in named["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]]
    ignored = re.compile(r"__pycache__|\.(pytest|mypy|ruff|hypothesis|import_linter)|\.ipynb_checkpoints")
    files = {path for one in kept for path in ([one] if one.is_file() else one.rglob("*")) if path.is_file()}
    wanted = {str(path.relative_to(ROOT)) for path in files if not ignored.search(str(path.relative_to(ROOT)))}
    found = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert all(path.exists() for path in kept)
    assert found - wanted == {"PKG-INFO", "pyproject.toml", ".gitignore"}
    assert wanted <= found
    for directory in ("tests", "docs", "examples", ".ci", "src"):
        assert any(name.startswith(f"{directory}/") for name in found), directory


def test_a_quick_part_of_the_tests_runs_from_it(unpacked, run):
    path = f"PYTHONPATH={unpacked / 'src'}"
    told = run("env", path, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *QUICK, where=unpacked).stdout
    where = run("env", path, sys.executable, "-c", FOUND, where=unpacked).stdout.strip()
    assert Path(where).is_relative_to(unpacked)
    passed = re.search(r"(\d+) passed", told)
    assert passed, told
    assert int(passed[1]) > 20
    assert "skipped" not in told
