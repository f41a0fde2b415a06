"""The examples of docs/jax.md, one after another: optax alone, Flax NNX, Equinox, and a checkpoint of orbax."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("optax", reason="optax is not installed: make integrations")
pytest.importorskip("flax", reason="flax is not installed: make integrations")
pytest.importorskip("equinox", reason="equinox is not installed: make integrations")
pytest.importorskip("orbax.checkpoint", reason="orbax is not installed: make integrations")

PAGE = Path(__file__).parents[2] / "docs" / "jax.md"


@pytest.mark.filterwarnings("ignore")  # of jax and orbax about their own versions
def test_every_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), scope)
    assert capsys.readouterr().out.count("step 19: capped") == 3
