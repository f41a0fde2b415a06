"""A run carried out for somebody else: what comes home, and what is refused."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace

import pytest
import torch

from experiments.counting import Counting, CountingSettings
from safestep import SafestepError
from safestep.errors import MissingExtraError
from safestep.experiments.runner import on_dask
from safestep.experiments.runner.errand import Errand, UnwantedError
from safestep.experiments.runner.experiment import Run
from safestep.experiments.runner.on_dask import Engine


def errand(**changes):
    return Errand(Counting(), CountingSettings(**changes), Run("one", 7))


def test_records_and_row_come_home_together():
    outcome = errand().carry_out()
    assert [record["count"] for record in outcome.records] == [0, 1, 2]
    assert outcome.row["sum"] == 3.5


def test_other_versions_are_refused_by_name():
    asked = errand()
    asked = replace(asked, versions={**asked.versions, "torch": "99.0", "safestep": "9.9"})
    with pytest.raises(SafestepError, match=r"has safestep .*\(asked for: 9.9\), torch .*\(asked for: 99.0\)") as error:
        asked.carry_out()
    assert "numpy" not in str(error.value)
    assert str(torch.__version__) in str(error.value)


def test_a_run_nobody_waits_for_ends_at_its_next_record():
    asked = []
    with pytest.raises(UnwantedError):
        errand(length=100).carry_out(lambda: len(asked) < 3 and not asked.append(1))
    assert len(asked) == 3


def test_a_process_carries_out_one_run_at_a_time():
    """They share its random generators, whatever threads an engine gives them."""
    inside, most = [], []

    class Watching(Counting):
        def execute(self, settings, run):
            inside.append(run)
            for record in super().execute(settings, run):
                most.append(len(inside))
                yield record
            inside.pop()
            return {"label": run.label, "seed": run.seed}

    threads = [
        threading.Thread(target=Errand(Watching(), CountingSettings(length=500), Run("one", seed)).carry_out)
        for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert len(most) == 4 * 500


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("dask://scheduler:8786", "tcp://scheduler:8786"),
        ("dask:tls://scheduler:8786", "tls://scheduler:8786"),
        ("dask:shared/scheduler.json", "shared/scheduler.json"),
    ],
)
def test_an_engine_is_named_by_a_text(text, address, monkeypatch):
    monkeypatch.setattr(on_dask, "need", lambda module, extra: None)
    assert Engine.of(text) == Engine(text, address)


@pytest.mark.parametrize(
    "text", ["", "Local", "dask", "dask:", "dask://", "slurm://host", "ray://host:1", "scheduler:8786"]
)
def test_another_text_is_told_what_was_expected(text):
    with pytest.raises(SafestepError, match=rf"engine={text}: expected local, dask://HOST:PORT"):
        Engine.of(text)


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"needs distributed, .* install safestep with its extra 'dask'"):
        Engine.of("dask://host:8786")
