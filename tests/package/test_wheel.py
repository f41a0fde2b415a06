"""The wheel: what it says of itself, what is in it, and that it works beside torch alone."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import safestep

ROOT = Path(__file__).parents[2]

THREE_STEPS = """
import torch, safestep
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=500.0)
guard = safestep.attach(model, optimizer, log="steps.csv")
for _ in range(3):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(torch.randn(16, 8)), torch.randint(0, 3, (16,))).backward()
    optimizer.step()
guard.detach()
print(safestep.__file__, len(safestep.logs.read("steps.csv")), guard.last.status)
"""


@pytest.fixture(scope="module")
def names(wheel) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


@pytest.fixture(scope="module")
def metadata(wheel) -> Message:
    with zipfile.ZipFile(wheel) as file:
        name = next(name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(file.read(name).decode())


def test_twine_finds_nothing_to_warn_of(built):
    told = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *built.glob("safestep-*")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("PASSED") == 2


def test_it_holds_every_file_of_the_source_and_no_other(names):
    source = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src" / "safestep").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == source
    assert "safestep/py.typed" in names


def test_its_licence_version_authors_and_needs(metadata, names):
    assert metadata["License-Expression"] == "MIT"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert not [line for line in metadata.get_all("Classifier") if line.startswith("License ::")]
    assert metadata["Author"] == "safestep developers"
    assert metadata["Version"] == safestep.__version__
    needs = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert [re.split(r"\W", line)[0] for line in needs] == ["torch"]


def test_the_long_description_is_the_readme_and_every_link_of_it_is_absolute(metadata):
    text, readme = metadata.get_payload(), (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert targets
    assert not [target for target in targets if not target.startswith(("https://", "#"))]
    urls = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL"))
    home = urls["Homepage"]
    relative = [target for target in re.findall(r"\]\(([^)]+)\)", readme) if not target.startswith(("http", "#"))]
    assert sum(target.startswith(f"{home}/") for target in targets) == len(relative) > 0
    back = re.sub(rf"\]\({re.escape(home)}/(?:raw|blob)/main/", "](", text)
    assert back.strip() == readme.strip()
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert all(target.startswith(f"{home}/raw/main/") for target in pictures)


def test_the_newest_python_that_is_named_is_one_that_the_tests_run_in(metadata):
    named = [line.rpartition(" ")[2] for line in metadata.get_all("Classifier") if ":: Python :: 3." in line]
    assert named
    assert metadata["Requires-Python"] == f">={named[0]}"
    assert ".".join(map(str, sys.version_info[:2])) in named


def test_three_guarded_steps_beside_torch_alone(empty, tmp_path, run):
    where, steps, status = run(empty / "python", "-c", THREE_STEPS, where=tmp_path).stdout.split()
    assert Path(where).is_relative_to(empty.parent)
    assert (steps, status) == ("3", "capped")


@pytest.mark.parametrize(
    ("words", "first"), [("--version", f"safestep {safestep.__version__}"), ("--help", "Usage: safestep COMMAND ...")]
)
def test_version_and_help_without_the_extras(words, first, empty, tmp_path, run):
    told = run(empty / "safestep", words, where=tmp_path)
    assert told.stdout.splitlines()[0] == first
    assert "needs typer, which is not installed: install safestep with its extra 'experiments'" in told.stderr
    assert "Traceback" not in told.stderr
