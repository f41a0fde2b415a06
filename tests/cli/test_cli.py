"""The command line: what it prints, where it stops, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import safestep
from experiments.made_up import run_directory
from safestep.cli import app as cli
from safestep.errors import RunDirectoryError
from safestep.experiments import NAMES, find
from safestep.experiments.runner import session
from safestep.experiments.runner.rundir import RunDirectory

SMALL = ["--set", "epochs=1", "--set", "width=8", "--set", "lrs=0.5", "--jobs", "1"]


@pytest.fixture
def pages(monkeypatch):
    """Replace the drawing of figures and page, which has its own tests, by a note of where it was asked for."""
    asked: list[Path] = []

    def draw(directory: Path) -> Path:
        asked.append(directory)
        return directory / "report.html"

    monkeypatch.setattr(cli, "_draw", draw)
    return asked


def safe(*words: str):
    return CliRunner().invoke(cli.app, list(words))


def refused(*words: str) -> str:
    """Return the message of a command that must fail for a reason of the user's."""
    result = safe(*words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert result.stderr.startswith("safestep: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_version_and_help():
    assert safe("--version").output == f"safestep {safestep.__version__}\n"
    assert all(word in safe("--help").output for word in ("list", "run", "report"))
    options = safe("run", "--help").output
    assert all(word in options for word in ("--seeds", "--jobs", "--engine", "--out", "--set", "--quick", "NAME"))


def test_list_tells_what_each_experiment_shows_and_its_settings():
    told = safe("list")
    assert told.exit_code == 0
    for name in NAMES:
        assert f"{name}\n  {find(name).about}\n" in told.stdout
    assert "lrs=0.05,0.5,5.0" in told.stdout
    assert "betas=0.9,0.999" in told.stdout


def test_run_prints_lines_table_and_page_and_a_second_call_prints_the_table_again(tmp_path, pages):
    path = tmp_path / "out"
    first = safe("run", "digits-sgd", *SMALL, "--out", str(path))
    assert first.exit_code == 0, first.output
    lines = first.stdout.splitlines()
    assert lines[0] == f"digits-sgd: 3 runs, 1 at a time, in {path}"
    assert [line.split(":")[0] for line in lines[1:4]] == [
        "1 of 3  fixed 0.5, seed 7",
        "2 of 3  capped 0.5, seed 7",
        "3 of 3  pin, seed 7",
    ]
    assert "digits-sgd, seed 7" in lines[4]
    assert lines[-1] == f"page: {path / 'report.html'}"
    assert pages == [path]
    again = safe("run", "digits-sgd", *SMALL, "--out", str(path))
    assert again.stdout.splitlines()[0] == "all 3 runs are there already"
    assert again.stdout.splitlines()[1:] == lines[4:]
    assert pages == [path, path]


def test_several_seeds_show_the_summary(tmp_path, pages):
    told = safe("run", "digits-momentum", *SMALL, "--out", str(tmp_path), "--seeds", "1, 2,1")
    assert told.exit_code == 0, told.output
    assert "digits-momentum, 2 seeds" in told.stdout
    assert "std" in told.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["seeds"] == [1, 2]
    assert [summary["seeds"] for summary in results["summary"]] == [2, 2]


def test_settings_may_follow_one_another_after_set(tmp_path, pages):
    words = ["--set", "epochs=1", "width=8", "lrs=0.5", "--jobs", "1", "--out", str(tmp_path)]
    assert safe("run", "digits-adam", *words).exit_code == 0
    settings = json.loads((tmp_path / "results.json").read_text())["settings"]
    assert (settings["epochs"], settings["width"], settings["lrs"]) == (1, 8, [0.5])


def test_the_directory_is_named_after_the_experiment_and_quick_has_its_own(tmp_path, pages, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert safe("run", "digits-adam", *SMALL).exit_code == 0
    assert safe("run", "digits-adam", "--quick", *SMALL[2:]).exit_code == 0
    assert pages == [Path("runs/digits-adam"), Path("runs/digits-adam-quick")]
    assert json.loads((tmp_path / "runs/digits-adam-quick/results.json").read_text())["settings"]["epochs"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "digits-sdg"], "no experiment 'digits-sdg'. Did you mean digits-sgd?"),
        (["run", "digits-sgd", "--set", "lr=1"], "no setting 'lr' in this experiment. Did you mean lrs?"),
        (["run", "digits-adam", "--set", "momentum=1"], "There are: target, epochs"),
        (["run", "digits-sgd", "--set", "epochs=many"], "epochs=many: expected a whole number"),
        (["run", "digits-sgd", "--seeds", "1,x"], "seeds=1,x: expected whole numbers"),
        (["run", "digits-sgd", "--seeds", "-1"], "seeds=-1: expected whole numbers"),
        (["run", "digits-sgd", "--seeds", "4294967296"], "from 0 to 4294967295"),
        (["run", "digits-sgd", "--engine", "slurm://head"], "engine=slurm://head: expected local, dask://HOST:PORT"),
        (["report", "nowhere"], "no run in nowhere, which does not exist: expected results.json"),
        (["report", "."], "no run in .: expected results.json"),
        (["run", "digits-sgd", "--out", ""], "--out is the current directory: expected a directory of its own"),
        (["run", "digits-sgd", "--out", "."], "expected a directory of its own"),
        (["run", "digits-sgd", "--out", "./"], "expected a directory of its own"),
        (["run", "digits-sgd", "--set", "width=2000000000"], "width=2000000000: expected at least 1 and at most"),
        (["run", "digits-sgd", "--set", "device=meta"], "device=meta: expected a device that torch finds here"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("jobs", ["0", "-2", "x"])
def test_a_number_of_jobs_is_one(jobs, tmp_path):
    told = safe("run", "digits-sgd", "--jobs", jobs, "--out", str(tmp_path / "out"))
    assert told.exit_code == 2
    assert "--jobs" in told.stderr
    assert not (tmp_path / "out").exists()


def test_a_directory_that_cannot_be_used_is_refused(tmp_path, pages):
    file = tmp_path / "file"
    file.write_text("mine")
    assert "file is a file" in refused("run", "digits-sgd", "--out", str(file))
    assert "Not a directory" in refused("run", "digits-sgd", "--out", str(file / "below"))
    with RunDirectory(tmp_path / "taken"):
        assert "in use by another run" in refused("run", "digits-sgd", "--out", str(tmp_path / "taken"))


def test_a_directory_of_other_settings_is_refused(tmp_path, pages):
    assert safe("run", "digits-sgd", *SMALL, "--out", str(tmp_path)).exit_code == 0
    before = (tmp_path / "results.json").read_bytes()
    assert "epochs=1 there, epochs=2 asked for" in refused(
        "run", "digits-sgd", *SMALL, "--set", "epochs=2", "--out", str(tmp_path)
    )
    assert "holds digits-sgd, not digits-adam" in refused("run", "digits-adam", "--out", str(tmp_path))
    assert (tmp_path / "results.json").read_bytes() == before


def test_report_needs_the_records_alone_and_says_what_they_lack(tmp_path, pages):
    assert safe("run", "digits-sgd", *SMALL, "--out", str(tmp_path)).exit_code == 0
    told = safe("report", str(tmp_path))
    assert told.exit_code == 0
    assert "digits-sgd, seed 7" in told.stdout.splitlines()[0]
    assert told.stdout.splitlines()[-1] == f"page: {tmp_path / 'report.html'}"
    results = json.loads((tmp_path / "results.json").read_text())
    results |= {"rows": results["rows"][:1], "finished": None}
    (tmp_path / "results.json").write_text(json.dumps(results))
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write('{"kind": "ep')
    told = safe("report", str(tmp_path)).stdout
    assert "1 lines of the records are cut short" in told
    assert "not finished: 1 rows so far" in told


def test_report_shows_an_experiment_of_another_version(tmp_path):
    """From figures to page: nothing is drawn by halves before it is refused, for it is not refused."""
    rows = [{"label": "slow", "seed": 1, "steps": 12, "end": "inf"}]
    run_directory(tmp_path, experiment="future-thing", rows=rows, summary=[], settings={"speed": 2})
    told = safe("report", str(tmp_path))
    assert (told.exit_code, told.stderr) == (0, "")
    lines = [line.split() for line in told.stdout.splitlines()]
    assert lines[0] == ["future-thing,", "seed", "1"]
    assert lines[1] == ["label", "steps", "end"]
    assert lines[3] == ["slow", "12", "inf"]
    assert told.stdout.splitlines()[-1] == f"page: {tmp_path / 'report.html'}"


def test_what_never_finished_a_run_does_not_keep_the_directory(tmp_path, pages, monkeypatch):
    def without_memory(*arguments):
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(session, "execute", without_memory)
    assert safe("run", "digits-adam", "--set", "width=100000", "--out", str(tmp_path)).exit_code == 1
    monkeypatch.undo()
    monkeypatch.setattr(cli, "_draw", lambda directory: directory)
    told = safe("run", "digits-sgd", *SMALL, "--out", str(tmp_path))
    assert told.exit_code == 0, told.output
    assert told.stdout.splitlines()[0].endswith("was ever finished: starting anew")
    assert json.loads((tmp_path / "results.json").read_text())["experiment"] == "digits-sgd"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_output_that_cannot_hold_every_letter_ends_nothing(encoding, tmp_path):
    run_directory(tmp_path)
    told = subprocess.run(
        [sys.executable, "-m", "safestep", "report", str(tmp_path)],
        capture_output=True,
        check=False,
        env=plain_environment() | {"PYTHONIOENCODING": encoding},
    )
    assert (told.returncode, told.stderr) == (0, b"")
    assert b"page: " in told.stdout
    assert b"1.85e+30" in told.stdout


def test_an_interrupt_while_the_command_is_imported_is_told():
    code = """
import sys
class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == "safestep.cli.app":
            raise KeyboardInterrupt
from safestep.__main__ import main
sys.meta_path.insert(0, Interrupt())
main()
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout, told.stderr) == (130, "", "safestep: interrupted\n")


def test_an_interrupt_before_the_runs_is_told(tmp_path, monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "find", interrupted)
    told = safe("run", "digits-sgd", "--out", str(tmp_path / "out"))
    assert (told.exit_code, told.stdout, told.stderr) == (130, "", "safestep: interrupted\n")


def test_a_disk_that_fills_up_is_told_without_traceback(tmp_path, pages, monkeypatch):
    def full(self, results):
        raise RunDirectoryError("cannot write: No space left on device")

    monkeypatch.setattr(RunDirectory, "save", full)
    told = safe("run", "digits-sgd", *SMALL, "--out", str(tmp_path))
    assert told.exit_code == 2
    assert told.stderr == "safestep: cannot write: No space left on device\n"


@pytest.mark.parametrize("module", ["joblib", "sklearn", "matplotlib", "jinja2"])
def test_a_missing_extra_is_told_before_any_work(module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    message = refused("run", "digits-sgd", "--out", str(tmp_path / "out"))
    assert f"needs {module}, which is not installed: install safestep with its extra 'experiments'" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_without_the_extra_the_command_names_it(module):
    code = f"import sys; sys.modules[{module!r}] = None; from safestep.__main__ import main; main()"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert told.stdout == ""
    assert told.stderr == (
        f"safestep: this part of safestep needs {module}, which is not installed: install safestep with its extra "
        "'experiments' (from a checkout: pip install '.[experiments]')\n"
    )


def plain_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in {"FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"}}


@pytest.mark.slow
def test_the_whole_way_through_a_pipe(tmp_path):
    """Figures and page included; what is printed has no escape codes and no cut cell."""
    told = subprocess.run(
        [sys.executable, "-m", "safestep", "run", "digits-sgd", *SMALL, "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=True,
        env=plain_environment(),
    )
    assert told.stderr == ""
    assert "\x1b" not in told.stdout
    assert "…" not in told.stdout
    assert all(word in told.stdout for word in ("accuracy", "peak r", "capped steps", "diverged"))
    page = Path(told.stdout.splitlines()[-1].removeprefix("page: "))
    assert page == tmp_path / "run" / "report.html"
    assert "<html" in page.read_text(encoding="utf-8")
    drawn = {file.name: file.read_bytes() for file in (tmp_path / "run" / "figures").iterdir()}
    assert drawn
    assert safe("report", str(tmp_path / "run")).exit_code == 0
    assert {file.name: file.read_bytes() for file in (tmp_path / "run" / "figures").iterdir()} == drawn


def kept(number: int, path: Path) -> str:
    return f"safestep: interrupted; {number} finished runs are kept in {path}, and the same command continues"


def test_an_interrupt_in_this_process_keeps_what_is_finished(tmp_path, pages, monkeypatch):
    executed = session.execute

    def interrupted(*arguments):
        yield next(executed(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "execute", interrupted)
    told = safe("run", "digits-sgd", *SMALL, "--out", str(tmp_path))
    assert told.exit_code == 130
    assert told.stderr == kept(1, tmp_path) + "\n"
    monkeypatch.undo()
    monkeypatch.setattr(cli, "_draw", lambda directory: directory)
    assert "continuing with 2 of 3 runs" in safe("run", "digits-sgd", *SMALL, "--out", str(tmp_path)).stdout


@pytest.mark.slow
def test_an_interrupt_from_the_keyboard_ends_every_process_and_says_how_to_continue(tmp_path):
    command = [sys.executable, "-m", "safestep", "run", "digits-sgd", "--out", str(tmp_path), "--jobs", "2"]
    command += ["--set", "epochs=400", "--set", "width=8", "--set", "batch_size=1400"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        for line in process.stdout:
            if line.startswith("1 of 7"):
                break
        time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the command
        _, told = process.communicate()
    assert process.returncode == 130
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert rows
    assert kept(len(rows), tmp_path) in told.splitlines()
    assert "Traceback" not in told
