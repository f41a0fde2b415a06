"""Experiments are found by name, loaded only then, and a wrong name is told the nearest."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from safestep.errors import UnknownNameError
from safestep.experiments import NAMES, find
from safestep.experiments.digits import digits_protocol


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_is_found_and_introduces_itself(name):
    experiment = find(name)
    assert experiment.name == name
    assert 20 < len(experiment.about) < 120
    settings = experiment.settings()
    runs = experiment.runs(settings, [7, 8])
    assert len({run.key for run in runs}) == len(runs)
    most = 100 if name == "bottlenecks" else 10  # 1200 steps, each measured, as the paper has it
    assert 0.1 < experiment.seconds_per_run(settings) < most


@pytest.mark.parametrize(
    ("name", "near"), [("digits-adm", "digits-adam"), ("sgd", "digits-sgd"), ("momentum", "digits-momentum")]
)
def test_an_unknown_name_is_told_the_nearest(name, near):
    with pytest.raises(UnknownNameError, match=f"no experiment '{name}'. Did you mean {near}[?] There are: digits-sgd"):
        find(name)


def test_a_name_like_no_other_is_told_them_all():
    with pytest.raises(UnknownNameError, match=r"no experiment 'zzz'\. There are: digits-sgd, digits-momentum"):
        find("zzz")


def test_the_rows_are_in_the_order_of_the_note():
    def labels(name):
        experiment = find(name)
        return [run.label for run in experiment.runs(experiment.settings(), [7])]

    fixed, capped = ["fixed 0.05", "fixed 0.5", "fixed 5.0"], ["capped 0.05", "capped 0.5", "capped 5.0"]
    assert labels("digits-sgd") == [*fixed, *capped, "pin"]
    assert labels("digits-momentum") == [f"{policy} {lr}" for policy in ("capped", "fixed") for lr in (0.05, 0.5, 2.0)]
    assert labels("digits-adam") == [f"{policy} {lr}" for policy in ("capped", "fixed") for lr in (0.001, 0.5, 2.0)]


def test_the_protocol_has_no_line_for_any_optimizer():
    source = inspect.getsource(digits_protocol).lower()
    assert "adam" not in source
    assert "sgd" not in source
    assert "momentum" not in source


def test_finding_loads_nothing_that_only_running_needs():
    heavy = {"sklearn", "matplotlib", "joblib", "jinja2", "rich", "typer"}
    code = f"import sys; from safestep.experiments import find; find('digits-sgd'); print({heavy} & sys.modules.keys())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


def test_a_study_of_another_distribution_is_found_by_its_entry_point(tmp_path):
    """The one of docs/extending.md, as a package would bring it."""
    page = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
    *_, study = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    imports = "import math\nimport torch\nfrom dataclasses import dataclass\n"
    (tmp_path / "walks.py").write_text(imports + study, encoding="utf-8")
    metadata = tmp_path / "walks-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: walks\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text("[safestep.experiments]\nwalk = walks:experiment\n", encoding="utf-8")

    def safestep(*words):
        path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", "safestep", *words]
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": path}, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "walk" in safestep("list")
    safestep("run", "walk", "--seeds", "0-2", "--set", "steps=50", "--out", "run")
    rows = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))["rows"]
    assert [row["seed"] for row in rows] == [0, 1, 2]
    assert "random walk" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
