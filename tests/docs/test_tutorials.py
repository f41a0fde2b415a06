"""The tutorials: the notebooks are the scripts, they start by installing, they run, and they show pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
PICTURES = {"sgd": 4, "momentum": 3, "adam": 5, "drift": 6, "noisy_descent": 11, "binary_radius": 4, "divergence": 3}
"""The least number of pictures that each tutorial shows."""
NAMES = sorted(PICTURES)


def committed(name: str) -> nbformat.NotebookNode:
    return nbformat.read(TUTORIALS / f"{name}.ipynb", as_version=4)


def content(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """Return what a reader sees of a notebook; ids and metadata are made anew by every conversion."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_every_tutorial_is_tested():
    assert sorted(path.stem for path in TUTORIALS.glob("*.py")) == NAMES
    assert sorted(path.stem for path in TUTORIALS.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_is_the_script(name):
    converted = jupytext.read(TUTORIALS / f"{name}.py")
    assert content(committed(name)) == content(converted), "the notebooks are out of date: run `make notebooks`"


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_is_committed_without_outputs(name):
    code = [cell for cell in committed(name).cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_cell_installs_the_package_where_it_is_missing(name, monkeypatch, tmp_path):
    first = committed(name).cells[0]
    assert first.cell_type == "code"

    commands = []
    monkeypatch.setattr("subprocess.run", lambda command, check: commands.append((command[-1], check)))
    exec(first.source, {})
    assert commands == []  # nothing to do here

    monkeypatch.setattr("importlib.util.find_spec", lambda module: None if module == "safestep" else object())
    monkeypatch.chdir(TUTORIALS)
    exec(first.source, {})
    assert commands.pop() == (f"safestep[tutorials] @ {TUTORIALS.parents[1].as_uri()}", True)

    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="SAFESTEP_SOURCE"):
        exec(first.source, {})
    monkeypatch.setenv("SAFESTEP_SOURCE", "git+https://example.org/safestep")
    exec(first.source, {})
    assert commands.pop() == ("safestep[tutorials] @ git+https://example.org/safestep", True)


class ThisInterpreter(AsyncKernelManager):
    """Starts kernels on the interpreter that runs the tests, whatever kernels the machine has registered."""

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        arguments = ["-m", "ipykernel_launcher", "-f", self.connection_file, *(extra_arguments or [])]
        return [sys.executable, *arguments]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_runs_and_shows_its_pictures(name, tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # ipykernel sets its own, which puts pictures into the notebook
    notebook = committed(name)
    NotebookClient(notebook, timeout=None, kernel_manager_class=ThisInterpreter, resources=at(tmp_path)).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    complaints = [output.text for output in outputs if output.get("name") == "stderr"]
    assert not complaints
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= PICTURES[name]


def at(folder: Path) -> dict[str, dict[str, str]]:
    """Return where nbclient is to run a notebook: a folder of its own, so that it can only use what is installed."""
    return {"metadata": {"path": str(folder)}}
