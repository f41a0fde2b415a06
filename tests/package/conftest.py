"""The package built once a session, and an environment that holds torch, this wheel and nothing else."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def say(*words: object, where: Path = ROOT, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command that must end with this code, in a world that knows nothing of these tests."""
    world = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "SAFESTEP_"))}
    done = subprocess.run(
        [*map(str, words)], cwd=where, env=world | {"NO_COLOR": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout[-4000:] + done.stderr[-4000:]
    return done


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """A folder with sdist, and the wheel that was built of it; the worker that asks first builds, the others wait."""
    own = tmp_path_factory.getbasetemp()
    place = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "built"
    with place.with_suffix(".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            say(sys.executable, "-m", "build", "--no-isolation", "--outdir", place.with_name("being-built"), ROOT)
            place.with_name("being-built").rename(place)
    return place


@pytest.fixture
def run():
    """`say`, for the tests of this folder."""
    return say


@pytest.fixture(scope="session")
def wheel(built) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="session")
def sdist(built) -> Path:
    return next(built.glob("*.tar.gz"))


@pytest.fixture(scope="session")
def empty(wheel, tmp_path_factory) -> Path:
    """The programs of an environment with torch, what torch needs, and the wheel, which pip has put there.

    torch is linked to from here, its metadata too, so that pip finds the requirement met and fetches nothing.
    """
    place = tmp_path_factory.mktemp("empty")
    venv.create(place)
    packages = next(place.glob("lib/python*/site-packages"))
    for name in _with_requirements("torch"):
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or () if file.parts[0] != ".."}:
            if top != "__pycache__":
                (packages / top).symlink_to(Path(str(found.locate_file(top))))
    pip = (sys.executable, "-m", "pip", "--python", place / "bin" / "python", "--disable-pip-version-check")
    say(*pip, "install", "--quiet", "--no-index", wheel)
    return place / "bin"


def _with_requirements(name: str, known: frozenset[str] = frozenset()) -> frozenset[str]:
    """Return a distribution and all that it needs here, without its extras."""
    known |= {name}
    for line in distribution(name).requires or ():
        needed, _, marker = line.partition(";")
        bare = re.split(r"[^\w.-]", needed.strip())[0].lower()
        if bare not in known and (not marker or _holds(marker)):
            known = _with_requirements(bare, known)
    return known


def _holds(marker: str) -> bool:
    from packaging.markers import Marker

    return Marker(marker).evaluate({"extra": ""})
