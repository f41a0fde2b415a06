"""docs/looking-at-a-run.md: its run, looked at by its commands, shows what the page shows."""

from __future__ import annotations

import math
import re
from pathlib import Path

from typer.testing import CliRunner

from logs.reports import report
from safestep import Status
from safestep.cli.app import app
from safestep.logs import read
from safestep.logs.columns import numbers
from safestep.looking.meanings import MEANINGS

PAGE = (Path(__file__).parents[2] / "docs" / "looking-at-a-run.md").read_text(encoding="utf-8")


def test_its_run_gives_its_view_and_its_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(block, "looking-at-a-run.md", "exec"), {})
    reports = list(read("steps.jsonl"))
    assert [report.status for report in reports[:52]].count(Status.CAPPED) == 1
    assert reports[50].status is Status.CAPPED
    assert 20 < reports[50].ratio < 500

    (shown,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    told = CliRunner().invoke(app, ["watch", "steps.jsonl", "--once"], env={"COLUMNS": "200"})
    assert told.exit_code == 0, told.output
    labels = [line[:16].rstrip() for line in shown.splitlines()[1:10]]
    assert [line[:16].rstrip() for line in told.stdout.splitlines()[1:10]] == labels
    assert "step 50: r jumps to " in told.stdout
    assert "step 50: r jumps to " in shown

    assert CliRunner().invoke(app, ["report", "steps.jsonl"]).exit_code == 0
    assert Path("steps.jsonl.report/figures/overview.png").is_file()


def test_its_table_has_the_words_of_the_commands():
    assert {
        Status(status): words for status, words in re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE)
    } == MEANINGS


def test_every_tag_that_it_names_is_one_that_a_dashboard_gets():
    logged = numbers(report(0)).keys() | numbers(report(1, ratio=math.nan, predicted_ratio=0.5)).keys()
    named = set(re.findall(r"`safestep/([\w/]+)`", PAGE))
    assert len(named) > 10
    assert named - {"lost", "status"} <= logged  # texts; tests/logs has them
