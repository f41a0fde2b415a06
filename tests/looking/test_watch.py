"""The live view: one frame of a real log, and many of one that grows under it."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import signal
import sys

import pytest
from rich.console import Console, RenderableType
from typer.testing import CliRunner

import processes
from logs.reports import inside, report
from looking.conftest import BROKEN, SPIKE
from safestep import Status
from safestep.cli.app import app
from safestep.errors import LogError
from safestep.logs import JsonLines, read
from safestep.looking.frame import frame, line
from safestep.looking.meanings import meanings
from safestep.looking.watch import watch


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None, legacy_windows=False)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_once_prints_the_last_step_and_what_happened(logs, suffix):
    path = logs / f"steps.{suffix}"
    told = CliRunner().invoke(app, ["watch", str(path), "--once"], env={"COLUMNS": "200"})
    assert told.exit_code == 0, told.output
    last = list(read(path))[-1]
    rows = {text[:16].strip(): text[16:].strip() for text in told.stdout.splitlines()}
    assert "step 59, inside" in told.stdout
    assert rows["r"].startswith(f"{last.shown()[0]} → {last.shown()[1]}   target 1")
    assert rows["scale"] == "1"
    assert rows["cap share"] == "1.7% of the last 60 steps"
    assert rows["effective rate"] == "0.1"
    assert rows["step length"].startswith(f"{last.step_length:.4g}")
    assert f"step {SPIKE}: r jumps to" in told.stdout
    assert f"step {BROKEN[0]}: undone, 2 in a row" in told.stdout


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", None, "does not exist"),
        ("a.csv", "", "holds no step yet"),
        ("a.jsonl", '{"step": 0, "sta', "holds no step yet"),
        ("a.csv", "epoch,loss\n1,2\n", "has the columns epoch, loss, and not step"),
        ("a.jsonl.gz", "", "is compressed"),
        (".", None, "is a directory"),
    ],
)
def test_what_cannot_be_shown_is_one_message(name, text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / name).write_text(text)
    told = CliRunner().invoke(app, ["watch", name, "--once"])
    assert told.exit_code == 2
    assert told.stdout == ""
    assert told.stderr.startswith(f"safestep: {name} ")
    assert message in told.stderr
    assert "expected" in told.stderr.lower()


@pytest.mark.filterwarnings("ignore:.*somebody else too")
def test_a_live_view_waits_follows_and_goes_on_through_a_rotation(tmp_path):
    path, screen = tmp_path / "steps.jsonl", terminal()
    sink, shown = JsonLines(path), []

    def happens(_: float) -> None:
        """What goes on between two looks; what was shown before it is kept."""
        text = screen.file.getvalue()
        screen.file.seek(0)
        screen.file.truncate()
        shown.append(text)
        match len(shown):
            case 1:
                sink(inside(0))
            case 2:
                sink(report(1))
                with path.open("ab") as file:
                    file.write(b'{"step": 2, "sta')  # somebody is in the middle of it
            case 3:
                path.rename(tmp_path / "steps.old")
            case 4:
                sink(inside(2))
            case _:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(path, screen, pause=happens)
    sink.close()
    expected = ["no step yet", "step 0, inside", "step 1, capped", "step 1, capped", "step 2, inside"]
    assert len(shown) == len(expected)
    for text, words in zip(shown, expected, strict=True):
        assert words in text


def test_a_file_that_turns_out_to_be_no_log_ends_the_live_view(tmp_path):
    path = tmp_path / "steps.csv"
    with pytest.raises(LogError, match="has the columns epoch, loss"):
        watch(path, terminal(), pause=lambda _: path.write_text("epoch,loss\n1,2\n"))


def test_in_a_real_terminal_it_shows_a_run_as_it_goes_and_ends_quietly_with_ctrl_c(tmp_path, trained):
    path = tmp_path / "steps.jsonl"
    pid, terminal_of = pty.fork()
    if pid == 0:
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        os.execv(sys.executable, [sys.executable, "-m", "safestep", "watch", str(path), "--every", "0.05"])
    seen = _until(terminal_of, b"no step yet")
    trained(str(path))
    seen += _until(terminal_of, b"step 59, inside")
    os.kill(pid, signal.SIGINT)
    with contextlib.suppress(OSError):  # Linux: the other end has gone
        while more := os.read(terminal_of, 4096):
            seen += more
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, seen[-2000:]
    assert b"Traceback" not in seen


def _until(terminal_of: int, words: bytes) -> bytes:
    seen = b""
    while words not in seen:
        seen += os.read(terminal_of, 4096)
    return seen


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_the_line_of_r_stays_one(logs, width):
    text = shown(frame("a/long/path/" * 6 + "steps.csv", list(read(logs / "steps.csv")), {}, 3.0, width), width)
    lines = [one.rstrip() for one in text.splitlines()]
    assert max(map(len, lines)) <= width
    assert "step 59, inside  written 3 s ago" in text
    assert re.search(r"^r so far +[▁-█! ]+  [\d.]+ … [\d.]+$", "\n".join(lines), re.MULTILINE)


def test_the_statuses_that_occur_are_explained_and_what_is_left_out_is_counted():
    run = [inside(0), report(1), report(2, status=Status.HELD, ratio=float("inf"), scale=0.0)]
    text = shown(frame("a.csv", run, {"no record of a step": 1, "superseded": 12, "torn": 0}))
    for status, told in meanings(run).items():
        assert re.search(rf"^{status} +{re.escape(told[:30])}", text, re.MULTILINE)
    assert "throttled" not in text
    assert "1 line of the log left out: no record of a step\n12 lines of the log left out: superseded\n" in text
    assert "torn" not in text


@pytest.mark.parametrize(
    ("given", "effective", "words"),
    [
        ((0.1, 0.1), (0.1, 0.1), "0.1"),
        ((0.1, 0.2), (0.05, 0.1), "0.05 0.1   given 0.1 0.2"),
        ((0.1,) * 9, (0.05,) * 9, "0.05   given 0.1"),
        ((float("nan"),), (float("nan"),), "nan"),
        (tuple(map(float, range(1, 9))), tuple(map(float, range(1, 9))), "1 … 8 in 8 groups"),
    ],
)
def test_the_rates_of_many_groups_are_short(given, effective, words):
    text = shown(frame("a.csv", [inside(0, lrs=given, effective_lrs=effective)]))
    assert re.search(r"^effective rate +(.*?) *$", text, re.MULTILINE)[1] == words


def shown(view: RenderableType, width: int = 100) -> str:
    screen = Console(file=io.StringIO(), width=width, color_system=None)
    screen.print(view)
    return screen.file.getvalue()


def test_the_line_of_r_has_a_bar_for_each_part_and_marks_what_is_not_finite():
    assert line([1.0] * 120) == "▁" * 60 + "  1 … 1"
    assert line([0.0, 1.0, 100.0]).startswith("▁▁█")
    assert line([float("nan")]) == "nothing measured"
    assert line([float("inf"), float("nan"), 0.0]) == "! ▁"
    assert line([1.0, *[0.5] * 119, 100.0, float("inf")], 61).endswith("!  0.5 … 100")
    assert line([5e-324, 1e308]) == "▁█  4.94e-324 … 1e+308"


def test_watching_needs_no_matplotlib(logs):
    code = "import sys; sys.modules['matplotlib'] = None; from safestep.__main__ import main; main()"
    assert "step 59" in processes.run("-c", code, "watch", logs / "steps.csv", "--once")
