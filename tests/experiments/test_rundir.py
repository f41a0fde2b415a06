"""The run directory: claimed by one process, whole at every moment, and clear about what is wrong with it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from safestep.errors import RunDirectoryError
from safestep.experiments.runner.rundir import (
    RunDirectory,
    append_records,
    read_records,
    read_results,
    require_results,
)

RUN = {"label": "one", "seed": 7}
RESULTS = {
    "experiment": "counting",
    "version": "1",
    "settings": {},
    "seeds": [7],
    "environment": {},
    "rows": [],
    "summary": [],
}


@contextlib.contextmanager
def files_end_at(size: int):
    """Let no file grow beyond a size, as on a full disk: a write gets as far as there is room, then fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def enter(path):
    with RunDirectory(path):
        pass


def test_it_is_made_with_its_parents_and_nothing_is_left_in_it(tmp_path):
    with RunDirectory(tmp_path / "a" / "b") as directory:
        assert directory.path.is_dir()
    assert read_results(tmp_path / "a" / "b") is None
    assert [path.name for path in directory.path.iterdir()] == [".lock"]


def test_a_file_in_the_way_is_told_and_kept(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(RunDirectoryError, match=r"file is a file.*--out"):
        enter(file)
    with pytest.raises(RunDirectoryError, match=r"cannot write to .*below: Not a directory; choose another"):
        enter(file / "below")
    assert file.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unwritable to root")
def test_an_unwritable_directory_is_told_before_any_work(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunDirectoryError, match=r"Permission denied.*--out"):
        enter(tmp_path / "run")


def test_a_full_disk_is_told_before_any_work(tmp_path):
    with files_end_at(100), pytest.raises(RunDirectoryError, match=r"cannot write to .*; choose another directory"):
        enter(tmp_path)
    enter(tmp_path)  # and the lock was given back


def test_a_second_process_is_kept_out_until_the_first_ends(tmp_path):
    code = f"""
import sys
from safestep.experiments.runner.rundir import RunDirectory
with RunDirectory({str(tmp_path)!r}):
    print("in", flush=True)
    sys.stdin.readline()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(RunDirectoryError, match="in use by another run"):
            enter(tmp_path)
        other.kill()  # it has no time to clean up
    enter(tmp_path)


def test_results_are_replaced_whole_or_not_at_all(tmp_path):
    with RunDirectory(tmp_path) as directory:
        directory.save({**RESULTS, "rows": [{"label": "ρ", "seed": 7}]})
        before = (tmp_path / "results.json").read_bytes()
        with files_end_at(50), pytest.raises(RunDirectoryError, match=r"what was finished so far is kept; make room"):
            directory.save({**RESULTS, "rows": [{"label": "x" * 1000}]})
        assert (tmp_path / "results.json").read_bytes() == before
    assert read_results(tmp_path)["rows"] == [{"label": "ρ", "seed": 7}]
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "results.json"}


def test_a_record_is_appended_whole_or_not_at_all(tmp_path):
    append_records(tmp_path, {"kind": "epoch", "r": float("inf")})
    before = (tmp_path / "records.jsonl").read_bytes()
    with files_end_at(len(before) + 10), pytest.raises(RunDirectoryError, match="No space left on device"):
        append_records(tmp_path, {"kind": "epoch", "r": 1.0})
    assert (tmp_path / "records.jsonl").read_bytes() == before == b'{"kind": "epoch", "r": "inf"}\n'


def test_the_records_of_a_run_are_appended_together_or_not_at_all(tmp_path):
    append_records(tmp_path, {**RUN, "i": 0}, {**RUN, "i": 1})
    before = (tmp_path / "records.jsonl").read_bytes()
    with files_end_at(len(before) * 2), pytest.raises(RunDirectoryError, match="No space left on device"):
        append_records(tmp_path, *({**RUN, "i": i} for i in range(2, 9)))
    assert (tmp_path / "records.jsonl").read_bytes() == before
    assert [record["i"] for record in read_records(tmp_path)[0]] == [0, 1]


def test_a_full_device_is_told(tmp_path):
    (tmp_path / "records.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunDirectoryError, match=os.strerror(errno.ENOSPC)):
        append_records(tmp_path, {"kind": "epoch"})


def test_many_may_append_at_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: append_records(tmp_path, {**RUN, "i": i, "text": "x" * 500}), range(200)))
    records, cut = read_records(tmp_path)
    assert cut == []
    assert sorted(record["i"] for record in records) == list(range(200))


def test_lines_cut_short_are_left_out_and_told(tmp_path):
    append_records(tmp_path, {**RUN, "i": 0})
    with (tmp_path / "records.jsonl").open("ab") as file:
        file.write(b'{"i": 1, "tex')
    assert read_records(tmp_path) == ([{**RUN, "i": 0}], ["line 2: cut short"])
    with RunDirectory(tmp_path) as directory:
        directory.keep([{**RUN, "i": 0}, {**RUN, "i": 2}])
    assert read_records(tmp_path) == ([{**RUN, "i": 0}, {**RUN, "i": 2}], [])


def test_no_records_are_no_lines(tmp_path):
    assert read_records(tmp_path) == ([], [])


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        *((line, "expected an object") for line in ([], 1, None, "text")),
        *((line, "expected label to be a text") for line in ({}, {"seed": 7}, {**RUN, "label": []})),
        *((line, "expected seed to be a whole number") for line in ({"label": "one"}, {**RUN, "seed": True})),
    ],
)
def test_lines_that_are_no_records_are_left_out_and_told(tmp_path, line, wrong):
    (tmp_path / "records.jsonl").write_text(f"{json.dumps(RUN)}\n{json.dumps(line)}\n{json.dumps(RUN)}\n")
    assert read_records(tmp_path) == ([RUN, RUN], [f"line 2: {wrong}"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 4}, "expected rows to be a list"),
        ({"rows": [{**RUN, "final_acc": 1.0}, {}]}, "expected label to be a text in place 2 of rows"),
        ({"rows": [{"label": "one"}]}, "expected seed to be a whole number in place 1 of rows"),
        ({"rows": [7]}, "expected an object in place 1 of rows"),
        ({"summary": [7]}, "expected an object in place 1 of summary"),
        ({"summary": None}, "expected summary to be a list"),
        ({"seeds": ["7"]}, "expected seeds to be whole numbers"),
        ({"seeds": {}}, "expected seeds to be a list"),
        ({"settings": []}, "expected settings to be an object"),
        ({"environment": "linux"}, "expected environment to be an object"),
        ({"version": None}, "expected version to be a text"),
        ({"experiment": 1}, "expected experiment to be a text"),
    ],
)
def test_results_of_another_shape_are_refused_by_what_is_wrong(tmp_path, change, message):
    (tmp_path / "results.json").write_text(json.dumps({**RESULTS, **change}))
    with pytest.raises(RunDirectoryError, match=rf"results.json was not written by `safestep run` \({message}\): mend"):
        read_results(tmp_path)


def test_a_row_may_lack_every_number_and_results_a_summary(tmp_path):
    results = {key: value for key, value in RESULTS.items() if key != "summary"} | {"rows": [RUN]}
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert read_results(tmp_path) == require_results(tmp_path) == results


def test_where_a_run_must_be_its_absence_says_whether_the_directory_is_there(tmp_path):
    with pytest.raises(RunDirectoryError, match=rf"no run in {tmp_path}: expected results.json, as `safestep run`"):
        require_results(tmp_path)
    with pytest.raises(RunDirectoryError, match=r"no run in .*nowhere, which does not exist: expected results.json"):
        require_results(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match=r"no run in .*file, which is a file: expected results.json"):
        require_results(tmp_path / "file")
    assert read_records(tmp_path / "file") == ([], [])


def test_without_file_locks_the_systems_that_have_them_are_named_and_pages_can_be_read(tmp_path, monkeypatch):
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert read_results(tmp_path) == RESULTS
    for use in (lambda: enter(tmp_path / "new"), lambda: append_records(tmp_path, RUN)):
        with pytest.raises(RunDirectoryError, match="run directories need Linux or macOS"):
            use()
    assert {path.name for path in tmp_path.iterdir()} == {"results.json"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"cannot read .*results.json"),
        ("\xff", r"cannot read .*results.json"),
        ("[]", "was not written by `safestep run`"),
        (json.dumps({"experiment": "x"}), "was not written by `safestep run`"),
    ],
)
def test_other_results_are_refused_and_kept(tmp_path, text, message):
    file = tmp_path / "results.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(RunDirectoryError, match=message):
        read_results(tmp_path)
    assert file.read_text(encoding="latin-1") == text


def test_records_without_results_are_refused(tmp_path):
    append_records(tmp_path, {"i": 0})
    with pytest.raises(RunDirectoryError, match=r"holds records.jsonl but no results.json"):
        read_results(tmp_path)
