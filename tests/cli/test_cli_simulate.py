"""`safestep simulate`: what it prints, what it draws, and what it refuses."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from safestep.cli import app as cli
from safestep.cli import simulate_command
from safestep.simulation import picture


def simulate(*words: str):
    return CliRunner().invoke(cli.app, ["simulate", *words])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def undrawn(monkeypatch):
    """Replace the drawing, which has its own tests, and note what was to be drawn."""
    asked = []

    class Blank:
        def savefig(self, path):
            path.write_text("picture")

    def draw(ensemble, label):
        asked.append((ensemble, label))
        return Blank()

    monkeypatch.setattr(picture, "draw", draw)
    return asked


def test_the_published_run_prints_its_last_point_and_a_picture():
    told = simulate("--noise", "none", "--steps", "20")
    assert told.exit_code == 0, told.output
    path = Path("runs/simulate/plane-sgd.png")
    assert told.stdout == f"epoch 20, x1: -0.057646, x2: -0.000073\npicture: {path}\n"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_an_ensemble_is_held_against_the_law(undrawn):
    told = simulate("quadratic:2,4", "--runs", "500", "--steps", "1000", "--schedule", "exponential:0.1")
    assert told.exit_code == 0, told.output
    assert "epoch 1000, mean of 500 runs: x1: -0.8" in told.stdout
    ((_, simulated, law, apart),) = re.findall(r"(mean x1) +(\S+) +(\S+) +(\S+)", told.stdout)
    assert law == "-0.825737"
    assert abs(float(simulated) - float(law)) < 5 * 0.075 / 500**0.5
    assert abs(float(apart)) < 5
    ((ensemble, label),) = undrawn
    assert label == "SGD, exponential:0.1"
    assert len(ensemble.traces) == 8


def test_every_option_reaches_the_simulation(undrawn):
    words = ["quadratic:3,1;1,2", "--optimizer", "sgd", "--lr", "0.2", "--option", "momentum=0.5", "--schedule"]
    words += [
        "warmup:5",
        "--first",
        "0",
        "--noise",
        "1,2",
        "--batch",
        "4",
        "--start",
        "-1,3",
        "--steps",
        "30",
    ]
    words += ["--runs", "12", "--seed", "3", "--policy", "cap:1", "--traces", "2", "--out", "mine.svg"]
    told = simulate(*words)
    assert told.exit_code == 0, told.output
    assert "no exact law: " in told.stdout
    assert "% shortened, " in told.stdout
    assert told.stdout.splitlines()[-1] == "picture: mine.svg"
    ((ensemble, _),) = undrawn
    assert ensemble.setting.objective.hessian == ((3.0, 1.0), (1.0, 2.0))
    assert ensemble.setting.start.tolist() == [-1.0, 3.0]
    assert (ensemble.setting.noise.scale, ensemble.setting.noise.batch) == ((1.0, 2.0), 4)
    assert ensemble.setting.rates()[:5].tolist() == pytest.approx([0.04, 0.08, 0.12, 0.16, 0.2])
    assert "momentum=0.5" in ensemble.setting.no_law
    assert ensemble.traces.shape == (2, 31, 2)
    assert simulate(*words).stdout == told.stdout
    assert simulate(*words, "--seed", "4").stdout != told.stdout


def test_a_long_simulation_says_how_far_it_is(undrawn, monkeypatch):
    monkeypatch.setattr(simulate_command, "_EVERY", 0.0)
    told = simulate("--runs", "3", "--steps", "5")
    assert told.exit_code == 0, told.output
    assert told.stderr.splitlines() == [f"3 runs of 5 steps: {step} done" for step in range(1, 6)]


def test_an_interrupt_is_told(undrawn, monkeypatch):
    def interrupted(ensemble, label):
        raise KeyboardInterrupt

    monkeypatch.setattr(picture, "draw", interrupted)
    told = simulate("--steps", "2")
    assert (told.exit_code, told.stderr) == (130, "safestep: interrupted\n")


def test_a_picture_is_only_replaced_where_it_was_named(undrawn):
    for name in ("plane-sgd.png", "plane-sgd-2.png"):
        assert simulate().stdout.splitlines()[-1] == f"picture: {Path('runs/simulate') / name}"
    for _ in range(2):
        assert simulate("--out", "here.png").stdout.splitlines()[-1] == "picture: here.png"
    assert sorted(path.name for path in Path("runs/simulate").iterdir()) == ["plane-sgd-2.png", "plane-sgd.png"]


def test_a_function_of_the_users_and_an_animation():
    Path("mine.py").write_text("def f(x1, x2):\n    return x1**4 + x2**2\n")
    told = simulate("mine.py:f", "--optimizer", "Adam", "--steps", "3", "--start", "1,1", "--animate", "trace.gif")
    assert told.exit_code == 0, told.output
    assert told.stdout.splitlines()[1:] == ["animation: trace.gif", "picture: runs/simulate/mine-py-f-adam.png"]
    assert Path("trace.gif").read_bytes().startswith(b"GIF")


def test_divergence_is_reported_and_drawn():
    told = simulate("--lr", "100", "--steps", "400", "--runs", "20")
    assert (told.exit_code, told.stderr) == (0, "")
    assert "20 of 20 runs diverged: the largest rate times the steepest curvature is 400" in told.stdout
    assert "standard errors apart" not in told.stdout
    assert Path("runs/simulate/plane-sgd.png").exists()


def test_the_command_lines_of_the_page_run(undrawn):
    text = (Path(__file__).parents[2] / "docs/experiments.md").read_text(encoding="utf-8")
    Path("mine.py").write_text("def f(x1, x2):\n    return x1**4 + 2 * x2**2\n")
    lines = re.findall(r"`safestep simulate ([^`]+)`", text)
    assert len(lines) == 2
    for line in lines:
        told = simulate(*shlex.split(line))
        assert told.exit_code == 0, told.output


def test_help_says_how_each_text_is_written():
    words = " ".join(simulate("--help").output.replace("│", " ").split())
    for part in ("plane, valley, rosenbrock, beale, saddle", "quadratic:2,4", "FILE.py:FUNCTION", "x of shape (runs,"):
        assert part in words
    for part in (
        "exponential:LAMBDA",
        "warmup:STEPS",
        "cap:TARGET",
        "momentum=0.9",
        "a new file in runs/simulate",
    ):
        assert part in words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rosenbrok"], "no objective 'rosenbrok'. Did you mean rosenbrock?"),
        (["y**2"], "no objective 'y**2'. There are: plane"),
        (["--optimizer", "adm"], "no optimizer 'adm'. Did you mean adam?"),
        (["--optimizer", "lbfgs"], "LBFGS cannot step an ensemble: it searches along one line"),
        (["--lr", "-1"], "SGD with lr=-1"),
        (["--option", "speed=1"], "SGD has no option 'speed'"),
        (["--schedule", "expo:1"], "no schedule 'expo'. Did you mean exponential?"),
        (["--first", "-1"], "first = -1: expected a whole number of at least 0"),
        (["--noise", "1,2,3"], "Gaussian(scale=(1.0, 2.0, 3.0)"),
        (["--batch", "0"], "batch = 0: expected a whole number of at least 1"),
        (["--start", "1"], "start=1: 1 numbers, expected 2"),
        (["--steps", "-1"], "steps = -1: expected a whole number of at least 0"),
        (["--runs", "0"], "runs = 0: expected a whole number of at least 1"),
        (["--seed", "-1"], "seed = -1: expected a whole number of at least 0"),
        (["--seed", "9223372036854775808"], "seed = 9223372036854775808: expected one below 2**63"),
        (["--runs", "1000000000000", "--steps", "0"], "do not fit into memory: they need at least 1.28e+05 GB, and"),
        (["--runs", "1000000000000"], "expected fewer --runs, --traces or --steps"),
        (["--policy", "hat"], "no policy 'hat'. Did you mean watch?"),
        (["--traces", "2"], "traces = 2 of 1 runs"),
        (["--out", ""], "--out .: is a directory"),
        (["--out", "a.txt"], "--out a.txt: expected a name that ends in .png"),
        (["--animate", "a.mp4"], "--animate a.mp4: expected a name that ends in .gif"),
        (["quadratic:2", "--animate", "a.gif"], "--animate a.gif: 1 variables; expected a trace in two variables"),
        (["--traces", "0", "--animate", "a.gif"], "--animate a.gif: no traces; expected a trace in two variables"),
        (["late.py:f", "--lr", "1"], "late.py:f failed in line 2: ValueError: too far"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(words, message, tmp_path):
    if words[0].startswith("late"):
        Path("late.py").write_text(
            "def f(x):\n    if x.abs().max() > 5.5: raise ValueError('too far')\n    return -(x**2).sum(-1)\n"
        )
    before = sorted(tmp_path.iterdir())
    told = simulate(*words)
    assert told.exit_code == 2, told.output
    assert told.stdout == ""
    assert told.stderr.startswith("safestep: ")
    assert message in told.stderr
    assert told.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_extra_is_told_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    told = simulate()
    assert told.exit_code == 2
    assert "needs matplotlib, which is not installed: install safestep with its extra 'experiments'" in told.stderr
    assert list(tmp_path.iterdir()) == []
