"""The page of a log: made of real logs, whole and broken."""

from __future__ import annotations

import re
import shutil
from html import escape

import pytest
from typer.testing import CliRunner

from looking.conftest import SPIKE
from safestep.cli.app import app
from safestep.logs import read
from safestep.looking.findings import findings
from safestep.looking.log_page import report_log
from safestep.looking.meanings import meanings

FIGURES = ["step_ratios", "status_shares", "effective_lrs", "step_lengths", "scales"]


@pytest.fixture(scope="module")
def page(logs) -> str:
    return report_log(logs / "steps.csv").read_text(encoding="utf-8")


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)))


def test_the_page_has_the_findings_figures_tables_and_events_of_the_log(page, logs):
    reports, text = list(read(logs / "steps.csv")), words(page)
    for sentence in findings(reports):
        assert sentence in text
    assert re.findall(r'<figure id="(\w+)"', page) == FIGURES
    assert page.count("data:image/png;base64,") == len(FIGURES)
    assert "Steps 0 to 59 · 60 records" in text
    assert page.count("<table") == 2
    assert page.count('<tr class="diverged">') == 1
    assert f"Step {SPIKE}: r jumps to {reports[SPIKE].ratio:.3g}" in text
    assert "This page is incomplete" not in text
    assert "superseded" not in text
    for status, meaning in meanings(reports).items():
        assert f"<dt>{status}</dt><dd>{escape(meaning)}</dd>" in page
    assert 'alt="Step ratios: step ratio r against step; ' in page


def test_the_page_needs_nothing_else_and_its_figures_lie_beside_it(page, logs):
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    there = {path.stem for path in (logs / "steps.csv.report" / "figures").iterdir()}
    assert there == {*FIGURES, "overview"}


def test_report_takes_a_log_of_either_kind_and_prints_where_the_page_is(logs):
    told = CliRunner().invoke(app, ["report", str(logs / "steps.jsonl")])
    assert told.exit_code == 0, told.output
    assert told.stdout == f"page: {logs / 'steps.jsonl.report' / 'report.html'}\n"


def test_a_damaged_log_gives_a_page_that_says_what_is_missing(logs, tmp_path):
    path = tmp_path / "steps.jsonl"
    lines = (logs / "steps.jsonl").read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:20], b"no record\n", *lines[25:50], lines[50][:100]]))
    text = words(report_log(path).read_text(encoding="utf-8"))
    assert "2 of its lines, cut short or no record of a step, left out" in text
    assert "Of 50 steps the log holds 45" in text


@pytest.mark.filterwarnings("ignore:.*records of an earlier run")
def test_a_page_of_two_runs_in_one_file_is_of_the_later_one_and_says_so(trained, tmp_path):
    path = tmp_path / "steps.jsonl"
    trained(str(path), steps=7)
    trained(str(path), steps=3)
    text = words(report_log(path).read_text(encoding="utf-8"))
    assert "Steps 0 to 2 · 3 records · 7 earlier records superseded: the log has their steps again" in text


def test_a_log_of_one_step_has_a_page(logs, tmp_path):
    path = tmp_path / "one.csv"
    path.write_bytes(b"".join((logs / "steps.csv").read_bytes().splitlines(keepends=True)[:2]))
    assert "Steps 0 to 0 · 1 record ·" in words(report_log(path).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", None, "does not exist: expected the log of a guard, or the directory of an experiment"),
        ("a.jsonl", "", "holds no step yet"),
        ("a.txt", "hello\n", "its first line is 'hello'"),
        ("a.jsonl", '{"epoch": 1}\n', "has the columns epoch, and not step"),
        ("a.csv.gz", "", "is compressed"),
    ],
)
def test_what_is_no_log_is_one_message_and_leaves_nothing(name, text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / name).write_text(text)
    told = CliRunner().invoke(app, ["report", name])
    assert told.exit_code == 2
    assert told.stdout == ""
    assert message in told.stderr
    assert {path.name for path in tmp_path.iterdir()} == ({name} if text is not None else set())


def test_the_records_of_an_experiment_are_told_from_a_log(tmp_path):
    for name in ("records.jsonl", "results.json"):
        (tmp_path / name).write_text("{}\n")
    told = CliRunner().invoke(app, ["report", str(tmp_path / "records.jsonl")])
    assert told.exit_code == 2
    assert f"expected `safestep report {tmp_path}`" in told.stderr


def test_a_folder_that_cannot_be_made_is_said(logs, tmp_path):
    shutil.copy(logs / "steps.csv", tmp_path)
    (tmp_path / "steps.csv.report").write_text("in the way")
    told = CliRunner().invoke(app, ["report", str(tmp_path / "steps.csv")])
    assert told.exit_code == 2
    assert "cannot write to" in told.stderr
