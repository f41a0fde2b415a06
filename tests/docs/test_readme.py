"""The README and the pages of docs/: every Python example runs, every link leads somewhere."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from safestep.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


ELSEWHERE = {"jax.md", "keras.md", "several-processes.md", "trainers.md"}
"""Pages whose examples run in processes or an environment of their own: tests/integrations, ranks and frameworks."""

OFFLINE = {"WANDB_MODE": "offline", "WANDB_CONSOLE": "off", "WANDB_SILENT": "true"} | {
    f"WANDB_{place}_DIR": "wandb-own" for place in ("CONFIG", "CACHE", "DATA")
}
"""W&B as it is where there is no network, keeping to the directory of the test."""


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # so says torch of a checkpoint of one process
@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in ELSEWHERE], ids=lambda page: page.name)
def test_every_python_example_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    scope: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, str(page), "exec"), scope)
    if (wandb := sys.modules.get("wandb")) is not None:
        wandb.teardown()  # its service is a process
    if page.name == "README.md":
        assert_said(capsys.readouterr().out, page)


def assert_said(out: str, page: Path) -> None:
    """Compare what was printed with what the page shows: words alike, numbers within what processors differ by."""
    (shown,) = re.findall(r"```text\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    number = r"(?<![\w.])\d+\.?\d*(?:e-?\d+)?"
    assert re.sub(number, "#", out) == re.sub(number, "#", shown)
    assert [*map(float, re.findall(number, out))] == pytest.approx([*map(float, re.findall(number, shown))], rel=0.05)


def test_the_readme_is_one_screen():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 900


def test_the_picture_of_the_readme_is_of_its_run(monkeypatch):
    """The script that draws it trains as the README does: the guarded run's losses are those that the README prints."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    found, _ = importlib.import_module("rate_spike").losses(guarded=True)
    shown = re.findall(
        r"^loss ([\d.]+)  step (\d+)", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert len(shown) == 4
    assert {int(step): float(loss) for loss, step in shown} == pytest.approx(
        {int(step): found[int(step)] for _, step in shown}, rel=0.05
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_local_link_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_make_command_named_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    named = set(re.findall(r"make ([a-z]+)", " ".join(re.findall(r"`[^`]+`|^make .*$", text, flags=re.MULTILINE))))
    assert named == {"demo", "test"} <= targets


def test_no_placeholder_is_left():
    for page in PAGES:
        assert not re.search(r"^[A-Z]{3,}$|TODO|FIXME", page.read_text(encoding="utf-8"), flags=re.MULTILINE), page.name


def test_the_command_lines_run_one_after_another(tmp_path, monkeypatch):
    """Each as it stands, after what `make demo` does, in a size that takes seconds."""
    monkeypatch.chdir(tmp_path)
    small = ["--set", "epochs=1", "--set", "width=4"]
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/experiments.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line.split("#")[0].split() for line in "\n".join(blocks).splitlines() if "safestep " in line]
    assert [line[1] for line in lines] == ["list", "run", "run", "run", "report"]
    runner = CliRunner()
    for arguments in (["run", "digits-sgd", "--out", "runs/digits-sgd"], *(line[1:] for line in lines)):
        extra = small if arguments[0] == "run" else []
        result = runner.invoke(app, [*arguments, *extra])
        assert result.exit_code == 0, result.output
