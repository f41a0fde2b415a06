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
from safestep.experiments.rundir import RunDirectory, append_record, read_records, read_results

RESULTS = {"experiment": "counting", "settings": {}, "seeds": [7], "rows": []}


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
from safestep.experiments.rundir import RunDirectory
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
        directory.save({**RESULTS, "rows": [{"label": "ρ"}]})
        before = (tmp_path / "results.json").read_bytes()
        with files_end_at(50), pytest.raises(RunDirectoryError, match=r"what was finished so far is kept; make room"):
            directory.save({**RESULTS, "rows": [{"label": "x" * 1000}]})
        assert (tmp_path / "results.json").read_bytes() == before
    assert read_results(tmp_path)["rows"] == [{"label": "ρ"}]
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "results.json"}


def test_a_record_is_appended_whole_or_not_at_all(tmp_path):
    append_record(tmp_path, {"kind": "epoch", "r": float("inf")})
    before = (tmp_path / "records.jsonl").read_bytes()
    with files_end_at(len(before) + 10), pytest.raises(RunDirectoryError, match="No space left on device"):
        append_record(tmp_path, {"kind": "epoch", "r": 1.0})
    assert (tmp_path / "records.jsonl").read_bytes() == before == b'{"kind": "epoch", "r": "inf"}\n'


def test_a_full_device_is_told(tmp_path):
    (tmp_path / "records.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunDirectoryError, match=os.strerror(errno.ENOSPC)):
        append_record(tmp_path, {"kind": "epoch"})


def test_many_may_append_at_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: append_record(tmp_path, {"i": i, "text": "x" * 500}), range(200)))
    records, cut = read_records(tmp_path)
    assert cut == 0
    assert sorted(record["i"] for record in records) == list(range(200))


def test_lines_cut_short_are_left_out_and_counted(tmp_path):
    append_record(tmp_path, {"i": 0})
    with (tmp_path / "records.jsonl").open("ab") as file:
        file.write(b'{"i": 1, "tex')
    assert read_records(tmp_path) == ([{"i": 0}], 1)
    with RunDirectory(tmp_path) as directory:
        directory.keep([{"i": 0}, {"i": 2}])
    assert read_records(tmp_path) == ([{"i": 0}, {"i": 2}], 0)


def test_no_records_are_no_lines(tmp_path):
    assert read_records(tmp_path) == ([], 0)


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
    append_record(tmp_path, {"i": 0})
    with pytest.raises(RunDirectoryError, match=r"holds records.jsonl but no results.json"):
        read_results(tmp_path)
