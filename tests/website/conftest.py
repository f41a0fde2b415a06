"""The site, built once for all workers, with notebooks whose outputs are made up: tests/docs runs the real ones."""

from __future__ import annotations

import base64
import fcntl
import io
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def made_up(notebook: Path) -> nbformat.NotebookNode:
    """Return a notebook as if it had run: every cell of code shows a wide picture, a long line and a table."""
    picture = io.BytesIO()
    Image.new("RGB", (1600, 400), "teal").save(picture, "PNG")
    shown = {"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": "<Figure>"}
    table = {"text/html": "<table><tr>" + "<td>some_wide_cell</td>" * 20 + "</tr></table>", "text/plain": "a table"}
    read = nbformat.read(notebook, as_version=4)
    for cell in read.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                nbformat.v4.new_output("stream", text="printed " * 40),
                nbformat.v4.new_output("display_data", data=shown),
                nbformat.v4.new_output("display_data", data=table),
            ]
    return read


def build(site: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build the site as `make docs` does, into a folder."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site; what the strict build complains of is the failure."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    place /= "website"
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = place / "outcome"
        if not outcome.exists():
            notebooks = place / "notebooks"
            notebooks.mkdir()
            for notebook in (ROOT / "docs" / "tutorials").glob("*.ipynb"):
                nbformat.write(made_up(notebook), notebooks / notebook.name)
            ran = build(place / "site", SAFESTEP_EXECUTED_TUTORIALS=str(notebooks))
            outcome.write_text(f"{ran.returncode}\n{ran.stdout}{ran.stderr}", encoding="utf-8")
    code, _, said = outcome.read_text(encoding="utf-8").partition("\n")
    assert code == "0", f"the site does not build; a page of docs/ that is new belongs into nav of mkdocs.yml:\n{said}"
    return place / "site"
