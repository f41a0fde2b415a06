"""What `make test-lowest` installs is the lowest that pyproject.toml promises."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def versions(lines, sign: str) -> dict[str, str]:
    return {m[1].lower(): m[2] for line in lines if (m := re.match(rf"([\w.-]+){sign}([\d.]+)", line))}


def test_the_lowest_versions_are_those_that_are_promised():
    tools = {"docs", "test", "integrations-test"}
    users = [*PROJECT["dependencies"], *(line for name, lines in EXTRAS.items() if name not in tools for line in lines)]
    promised = versions(users, ">=")
    pinned = versions((ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines(), "==")
    assert promised.keys() <= pinned.keys()
    for name, bound in ({**versions(EXTRAS["test"], ">="), **promised}).items():
        if name in pinned:
            assert f"{pinned[name]}.".startswith(f"{bound}."), f"{name}>={bound} is promised, {pinned[name]} is tried"
