"""`safestep autopsy`: the same as the function, a page with its figures, and messages for what cannot be used."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from safestep.cli.app import app
from safestep.experiments.runner.settings import SettingError
from safestep.simulation.user_file import read_function
from safestep.tools.autopsy import autopsy

EXAMPLE = Path(__file__).parents[2] / "examples" / "post_mortem.py"
FIGURES = ["loss_along_step"]


def run(*words: object):
    return CliRunner().invoke(app, ["autopsy", *map(str, words)])


@pytest.fixture(scope="module")
def spike(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("spike") / "spike.pt"
    torch.save(read_function(f"{EXAMPLE}:train")("batch"), path)
    return path


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A function that writes a file and returns how --script names a function of it."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "setup") -> str:
        (tmp_path / "script.py").write_text(text, encoding="utf-8")
        return f"script.py:{name}"

    return write


def refused(*words: object) -> str:
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert not list(Path().glob("*.autopsy"))
    return result.output


def test_command_and_function_agree_and_the_page_shows_what_they_found(spike, tmp_path):
    result = run(spike, "--script", EXAMPLE, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    setup = read_function(f"{EXAMPLE}:setup")
    found = autopsy(setup(torch.load(spike, weights_only=True)))
    record = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert {key: record[key] for key in found.as_record()} == json.loads(json.dumps(found.as_record()))
    assert record["cause"] == "batch"
    for line in str(found).splitlines():
        assert line in result.stdout
    page = unescape((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert re.findall(r'<figure id="(\w+)"', page) == FIGURES
    assert page.count("data:image/png;base64,") == len(FIGURES)
    assert page.count("<table") == 4
    for sentence in (*found.findings, *(one.words for one in found.instead)):
        assert sentence in page
    assert not re.search(r"<td>[^<]*[1-9]\d{4}", page)


def test_it_goes_beside_the_checkpoint_by_itself_and_an_earlier_one_gives_way(spike):
    for _ in range(2):
        result = run(spike, "--script", f"{EXAMPLE}:setup")
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines()[-1] == f"page: {spike}.autopsy/report.html"
    assert sorted(path.name for path in Path(f"{spike}.autopsy").iterdir()) == [
        "figures",
        "report.html",
        "results.json",
    ]


def test_a_script_may_import_what_lies_beside_it(spike, tmp_path, script):
    shutil.copy(EXAMPLE, tmp_path / "beside_it.py")
    named = script("def setup(checkpoint):\n    import beside_it\n    return beside_it.setup(checkpoint)\n")
    assert run(spike, "--script", named, "--out", "out").exit_code == 0


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("def start(x): ...", "setup", r"no function 'setup' in script\.py.*There are: start"),
        ("setup = 3", "setup", r"script\.py:setup is 3: expected a function"),
        ("1 / 0", "setup", r"script\.py cannot be run in line 1: ZeroDivisionError"),
        ("def setup(x): return x['weights']", "setup", r"line 1: KeyError: 'weights'\n.*holds: model, optimizer"),
        ("def setup(x): return 3", "setup", r"returned int: expected FILE\.py:FUNCTION"),
        ("import torch\ndef setup(x):\n  torch.nn.Linear(1, 1).load_state_dict(x['model'])", "setup",
         r"line 3: RuntimeError: Error\(s\) in loading state_dict for Linear:.*Missing key\(s\).*weight"),
    ],
)  # fmt: skip
def test_a_script_that_does_not_do_is_told(spike, script, text, name, said):
    assert re.search(said, refused(spike, "--script", script(text, name)), re.DOTALL)


def test_a_file_that_is_no_checkpoint_is_told(spike, script):
    assert "script.txt: expected FILE.py:FUNCTION" in refused(spike, "--script", "script.txt")
    assert "none.py is no Python file" in refused(spike, "--script", "none.py")
    named = script("def setup(x): ...")
    assert "none.pt is not there" in refused("none.pt", "--script", named)
    Path("text.pt").write_text("no checkpoint", encoding="utf-8")
    assert "text.pt" in refused("text.pt", "--script", named)
    torch.save({"model": re.compile("a")}, "objects.pt")
    assert "add_safe_globals" in refused("objects.pt", "--script", named)
    Path("cut.pt").write_bytes(spike.read_bytes()[:2000])
    assert "cut.pt cannot be read as a checkpoint" in refused("cut.pt", "--script", named)


def test_a_step_that_cannot_be_examined_and_a_folder_that_cannot_be_written_are_told(spike, script):
    named = script(EXAMPLE.read_text(encoding="utf-8").replace("    optimizer.load_state_dict", "    len"))
    assert "AdamW has no state" in refused(spike, "--script", named)
    Path("file").write_text("", encoding="utf-8")
    result = run(spike, "--script", EXAMPLE, "--out", "file")
    assert result.exit_code == 2
    assert "cannot write to file" in result.output


def test_an_error_of_the_script_is_of_the_kind_that_was_asked_for(script):
    function = read_function(script("def setup(x):\n    raise OSError('first\\nsecond\\nthird')"), SettingError)
    with pytest.raises(SettingError, match=r"setup failed in line 2: OSError: first second$"):
        function(1)
